"""Write a text file whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from loadkit.core.errors import InputError


def write_whole(path: Path, text: str) -> None:
    """Write beside `path`, then rename; who may read it is up to the umask. InputError if the folder
    cannot be written to."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            unfinished.write_text(text, "utf-8")
            unfinished.replace(path)
        except BaseException:
            with suppress(OSError):
                unfinished.unlink()
            raise
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=path) from error
