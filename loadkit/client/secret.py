"""API keys: read from the environment or a file, printed as stars, never pickled or serialised."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from loadkit.core.errors import InputError

KEY_VARIABLES = ("LOADKIT_API_KEY", "OPENAI_API_KEY")


class Secret:
    """A string that shows as stars everywhere; `reveal()` is the only way to its value."""

    __slots__ = ("_value",)

    def __init__(self, value: str):
        self._value = value

    def reveal(self) -> str:
        return self._value

    def strip_from(self, text: str) -> str:
        """`text` with stars in place of the key: a server may say in an error what it was sent."""
        return text.replace(self._value, "***")

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not serialised")


def read_api_key(
    file: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Secret | None:
    """Key from `file`, else from LOADKIT_API_KEY or OPENAI_API_KEY; None when there is none.

    InputError for a file that cannot be read, or a key that cannot stand in an HTTP header (the
    message never holds the key).
    """
    if file is not None:
        return _checked(_file_text(file), str(file))
    for name in KEY_VARIABLES:
        if environ.get(name, "").strip():
            return _checked(environ[name], f"${name}")
    return None


def _file_text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot read the API key", where=file, remedy="check the path") from error


def _checked(text: str, where: str) -> Secret:
    key = text.strip()
    if not key or not key.isascii() or not key.isprintable():
        raise InputError(
            "not an API key", where=where, remedy="one line of printable ASCII characters"
        )
    return Secret(key)
