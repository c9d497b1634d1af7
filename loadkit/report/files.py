"""Write a text file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from loadkit.core.errors import InputError


def write_whole(path: Path, text: str) -> None:
    """Write beside `path`, then rename. InputError if the folder cannot be written to."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=path) from error
