"""Where `loadkit serve` takes its keys from."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadkit.core.errors import InputError
from reference_server.keys import ADMIN_KEY_VARIABLE, API_KEY_VARIABLE, read_keys


@pytest.fixture(autouse=True)
def no_keys_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (API_KEY_VARIABLE, ADMIN_KEY_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def test_a_file_has_a_key_a_line_and_comes_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    path.write_text("one\n\n  two \n")
    monkeypatch.setenv(API_KEY_VARIABLE, "other")
    assert read_keys(path, None).api_keys == ("one", "two")
    assert read_keys(None, None).api_keys == ("other",)
    monkeypatch.setenv(API_KEY_VARIABLE, "")
    assert read_keys(None, None).api_keys == ()


@pytest.mark.parametrize("content", ["", "\n \n", "schlüssel\n", "two words\n", "a\x00b\n"])
def test_what_is_no_key_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as refused:
        read_keys(path, None)
    assert str(path) in str(refused.value)
    assert "words" not in str(refused.value)


def test_there_is_one_admin_key(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    path.write_text("boss\n")
    assert read_keys(None, path).admin_key == "boss"
    path.write_text("boss\nother\n")
    with pytest.raises(InputError, match="one admin key"):
        read_keys(None, path)
