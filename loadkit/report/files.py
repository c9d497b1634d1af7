"""Write a text file whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from loadkit.core.errors import InputError

# Nothing that lies at the name, link or file, is ever written to.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)


def write_whole(path: Path, text: str, *, private: bool = False) -> None:
    """Write beside `path`, then rename. Who may read it is up to the umask, its owner alone if
    `private`. InputError if the folder cannot be written to."""
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        opened = os.open(unfinished, _NEW, 0o600 if private else 0o666)
        try:
            with os.fdopen(opened, "w", encoding="utf-8") as file:
                file.write(text)
            unfinished.replace(path)
        except BaseException:
            with suppress(OSError):
                unfinished.unlink()
            raise
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=path) from error
