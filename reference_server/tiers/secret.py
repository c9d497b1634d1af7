"""The secret that salts are made with, kept beside the disk tier: without it no tenant's blocks would
be found again after a restart."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from loadkit.core.errors import InputError

SECRET_BYTES = 32


def lasting_secret(disk_file: Path) -> bytes:
    """Read from, or made in, a file that only its owner can read. InputError if that fails."""
    path = disk_file.with_name(disk_file.name + ".secret")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            found = path.read_bytes()
            if len(found) != SECRET_BYTES:
                raise InputError("is not whole", where=path, remedy="delete it") from None
            return found
        made = secrets.token_bytes(SECRET_BYTES)
        with os.fdopen(file, "wb") as out:
            out.write(made)
        return made
    except OSError as error:
        raise InputError(f"no secret to be had: {error.strerror}", where=path) from error
