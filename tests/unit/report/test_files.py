"""Files written whole: who may read them, and what lies in the way."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadkit.core.errors import InputError
from loadkit.report.files import write_whole

pytestmark = pytest.mark.skipif(os.name == "nt", reason="modes and links of POSIX")


@pytest.fixture
def umask_022() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask_022")
def test_a_private_file_is_its_owners_alone_and_another_follows_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_whole(path, "shown to all")
    assert mode(path) == 0o644
    write_whole(path, "prompts", private=True)
    assert (mode(path), path.read_text("utf-8")) == (0o600, "prompts")


@pytest.mark.parametrize("private", [False, True])
def test_a_link_laid_at_the_unfinished_files_name_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private: bool
) -> None:
    """Even if the name were guessed."""
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    victim, path = tmp_path / "victim", tmp_path / "report.html"
    victim.write_text("mine", "utf-8")
    for guess in ("guessed", str(os.getpid())):
        (tmp_path / f".report.html.{guess}.tmp").symlink_to(victim)
    with pytest.raises(InputError, match="cannot be written: File exists"):
        write_whole(path, "page", private=private)
    assert victim.read_text("utf-8") == "mine"
    assert (tmp_path / ".report.html.guessed.tmp").is_symlink(), "it is not ours to remove"
