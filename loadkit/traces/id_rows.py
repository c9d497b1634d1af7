"""One request as block ids, as every format can give it, and the checks that such a row must pass."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import msgspec

from loadkit.traces.lines import Place
from loadkit.traces.reading import Name


class IdRow(msgspec.Struct):
    """A request with its chained block ids: full blocks, or with one for the partial tail.

    prompt_key: equal for identical whole prompts; None: the last id and the length tell them.
    link: its own chat's name and that of the chat before it, in a format that links its rows
    instead of naming sessions. Times in seconds; None where the log does not say.
    """

    place: Place
    ids: Sequence[int]
    prompt_tokens: int
    prompt_key: int | None = None
    arrival_s: float | None = None
    output_tokens: int | None = None
    session: Name | None = None
    link: tuple[Name, Name] | None = None
    request_id: Name | None = None
    block_size: int | None = None
    has_reply: bool = False


def check_count(place: Place, length: int, count: int, size: int) -> None:
    """FormatError unless `count` ids are the full blocks of `length` tokens, or one more."""
    floor, ceil = length // size, -(-length // size)
    if count not in (floor, ceil):
        raise place.error(
            f"{count} block ids do not fit {length} tokens in blocks of {size}"
            f" (expected {floor} or {ceil})",
            _block_size_hint(length, count),
        )


def as_signed(place: Place, ids: Sequence[int]) -> array[int]:
    """The ids as signed 64-bit integers; unsigned ones are kept by their bits."""
    try:
        return array("q", ids)
    except OverflowError:
        return array("q", [_one_signed(place, value) for value in ids])


def _one_signed(place: Place, value: int) -> int:
    if not -(2**63) <= value < 2**64:
        raise place.error(f"block id {value} does not fit 64 bits")
    return value - 2**64 if value >= 2**63 else value


def _block_size_hint(length: int, count: int) -> str:
    for size in (2**power for power in range(12)):
        if count in (length // size, -(-length // size)):
            return f"blocks of {size} would fit this row: --block-size {size}"
    return "no usual block size fits this row: is the length right?"
