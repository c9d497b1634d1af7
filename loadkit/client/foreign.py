"""The one door for what a server says: bounded, and with one error.

Bytes come in through an `Exchange` alone, on the timed path and beside it: it ends at a total
deadline and at a number of bytes. Here they become JSON, numbers and text. JSON is UTF-8 without half
characters, no deeper than Python's own limit where fields are skipped and `MAX_DEPTH` where a value is
kept; a number is a count or an id only within its bounds; text for a table or a terminal is one short
line. What does not fit is `Malformed`, or unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

MAX_DEPTH = 64
MAX_COUNT = 1 << 53  # below what a table's 64 bits hold, with room to add up; exact as a double
MAX_TOKEN_ID = 2**31 - 1  # engines hold ids in 32 signed bits; the reader of logs takes no more
MAX_ERROR_CHARS = 300
MAX_NAME_CHARS = 256
# RecursionError: nesting as deep as only an attack has it.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

Strip = Callable[[str], str]


class Malformed(Exception):
    """Data that is no answer of a server we know. index: of which event, 0 without."""

    def __init__(self, what: str, index: int = 0):
        self.index = index
        super().__init__(what)


def unchanged(text: str) -> str:
    """A `Strip` without anything to strip."""
    return text


def read_json(data: bytes, strip: Strip = unchanged) -> Any:
    """A value that is kept or shown, `strip` called on each of its texts and names. Malformed."""
    try:
        return _clean(msgspec.json.decode(data), strip, MAX_DEPTH)
    except UNREADABLE as error:
        raise Malformed(f"not JSON: {strip(str(error))}") from error


def _clean(value: Any, strip: Strip, depth: int) -> Any:
    if isinstance(value, str):
        return strip(value)
    if not isinstance(value, (list, dict)):
        return value
    if depth == 0:
        raise Malformed(f"JSON nested deeper than {MAX_DEPTH}")
    if isinstance(value, list):
        return [_clean(one, strip, depth - 1) for one in value]
    return {strip(name): _clean(one, strip, depth - 1) for name, one in value.items()}


def count_of(value: object) -> int | None:
    """A number of tokens or blocks that can be; None for anything else. Some servers write it as 3.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MAX_COUNT:
        return None
    return value


def are_token_ids(ids: Sequence[int]) -> bool:
    """Whether every number can be a token's id: JSON holds numbers of any size, a journal does not."""
    return not ids or (min(ids) >= 0 and max(ids) <= MAX_TOKEN_ID)


def printable(text: str, strip: Strip = unchanged) -> str:
    """Server text made safe for a terminal and a table: one line, no control characters, short.

    Stripped before it is cut, so that no half of a key is left over, and again after its white space
    has become one."""
    text = strip(text[: 8 * MAX_ERROR_CHARS])[: 2 * MAX_ERROR_CHARS]
    clean = "".join(c if c.isprintable() else " " for c in text)
    return strip(" ".join(clean.split()))[:MAX_ERROR_CHARS]
