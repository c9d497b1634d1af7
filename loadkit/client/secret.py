"""API keys: read from the environment or a file, printed as stars, never pickled or serialised."""

from __future__ import annotations

import os
import string
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from loadkit.core.errors import InputError

KEY_VARIABLES = ("LOADKIT_API_KEY", "OPENAI_API_KEY")
PART, GRAM = 8, 5
_RUN = b"\x01" * PART
MAX_PARTS = 10_000
STARS = "***"
_LOWER = {ord(upper): upper.lower() for upper in string.ascii_uppercase}


class Secret:
    """A string that shows as stars everywhere; `reveal()` is the only way to its value.

    `strip_from` takes it out of what a server says: whole, and every part of `PART` characters and
    more, in any case. A key shorter than that is no secret ("none", "EMPTY") and stays, so that it
    changes no reply. Not seen: a key in another coding (base64, percent signs, token ids), backwards, or in
    pieces of fewer characters than a part with something between them.
    """

    __slots__ = ("_grams", "_marks", "_value")

    def __init__(self, value: str):
        self._value = value
        low = _lower(value)
        # Every part of 8 holds one of these 5 characters, which begin at every fourth place.
        last = len(low) - GRAM if len(low) >= PART else -1
        self._grams = tuple(dict.fromkeys(low[at : at + GRAM] for at in range(0, last + 1, 4)))
        letters = {*low.encode(), *low.upper().encode()}
        self._marks = bytes(byte in letters for byte in range(256))

    def reveal(self) -> str:
        return self._value

    def strip_from(self, text: str) -> str:
        """`text` with stars in place of the key and its parts; the same object where it has none."""
        if _RUN not in text.encode("utf-8", "replace").translate(self._marks):
            return text  # nowhere 8 of its characters in a row: nearly every text, if it is hexadecimal
        low = text.lower()
        for gram in self._grams:
            if gram in low:
                return self._stripped(text)
        return text

    def _stripped(self, text: str) -> str:
        low, key = _lower(text), _lower(self._value)
        starts: set[int] = set()
        for part in {key[at : at + PART] for at in range(len(key) - PART + 1)}:
            start = low.find(part)
            while start >= 0:
                starts.add(start)
                if len(starts) > MAX_PARTS:
                    return STARS  # of a text made of the key there is nothing to keep
                start = low.find(part, start + 1)
        pieces: list[str] = []
        end = 0
        for start in sorted(starts):
            if start > end or not pieces:
                pieces.append(text[end:start])
            end = start + PART
        return STARS.join([*pieces, text[end:]]) if starts else text

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


def _lower(text: str) -> str:
    """ASCII only, so that every character keeps its place."""
    return text.translate(_LOWER)


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
