"""Where `loadkit serve` takes its keys from."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadkit.cli.serve import _admin_key, _read_keys
from loadkit.core.errors import InputError

VARIABLE = "LOADKIT_KEY_OF_THIS_TEST"


def test_a_file_has_a_key_a_line_and_comes_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    path.write_text("one\n\n  two \n")
    monkeypatch.setenv(VARIABLE, "other")
    assert _read_keys(path, VARIABLE) == ("one", "two")
    assert _read_keys(None, VARIABLE) == ("other",)
    monkeypatch.setenv(VARIABLE, "")
    assert _read_keys(None, VARIABLE) == ()


@pytest.mark.parametrize("content", ["", "\n \n", "schlüssel\n", "two words\n", "a\x00b\n"])
def test_what_is_no_key_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as refused:
        _read_keys(path, VARIABLE)
    assert str(path) in str(refused.value)
    assert "words" not in str(refused.value)


def test_there_is_one_admin_key(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    path.write_text("boss\n")
    assert _admin_key(path) == "boss"
    path.write_text("boss\nother\n")
    with pytest.raises(InputError, match="one admin key"):
        _admin_key(path)
