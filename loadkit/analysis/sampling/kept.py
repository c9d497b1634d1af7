"""A log read twice, a piece at a time: once to find heavy blocks, once to keep the chosen ones.

Memory: 17 B a kept touch and about 100 B a request; nothing else of the log stays.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from loadkit.analysis.sampling.choose import Chosen, TouchCounter
from loadkit.core.errors import InputError
from loadkit.core.trace import UNKNOWN, FloatArray, IntArray
from loadkit.traces import hashed, mooncake
from loadkit.traces.lines import Place
from loadkit.traces.reading import Name, Reading
from loadkit.traces.rows import RowFacts, order_by_arrival

_ROWS_AT_ONCE = 1024
FORMATS = (mooncake.NAME, hashed.NAME)
NO_SESSIONS = (
    "no session ids: what continues a session counts as shared, and its repeats as another's"
)
NO_REPLIES = "replies in the log are left out: a sample is of prompts only"


@dataclass(frozen=True, slots=True)
class Row:
    """What a sample needs of a request."""

    place: Place
    ids: list[int]
    prompt_tokens: int
    session: Name | None
    arrival_s: float | None
    output_tokens: int | None
    block_size: int | None
    has_reply: bool


@dataclass(frozen=True, slots=True)
class KeptTouches:
    """A log in order of arrival with its chosen blocks; n = requests, k = kept touches."""

    block_size: int
    prompt_tokens: IntArray  # (n,)
    num_blocks: IntArray  # (n,) blocks of the whole chain
    last_id: IntArray  # (n,) the chain's last id as logged
    session: IntArray  # (n,) dense
    arrival_s: FloatArray | None
    ptr: IntArray  # (n + 1,)
    ids: IntArray  # (k,) as logged
    depth: npt.NDArray[np.int32]  # (k,) blocks above it in its chain
    group: npt.NDArray[np.int8]  # (k,) -1 heavy, else the group of a light block
    warnings: tuple[str, ...]


def keep(
    open_log: Callable[[], Reading],
    format: str,
    rate: float,
    num_groups: int,
    block_size: int | None,
    seed: int,
) -> KeptTouches:
    """Read a log of block ids and keep a sample. open_log: a new reading of it, called twice."""
    counter = TouchCounter(seed)
    for rows in _pieces(open_log(), format):
        counter.add(_ids(rows))
    return _Keeper(Chosen(rate, counter.heavy(rate), num_groups, seed), format, block_size).read(
        open_log()
    )


class _Keeper:
    def __init__(self, chosen: Chosen, format: str, block_size: int | None):
        self._chosen, self._format = chosen, format
        self._asked = block_size
        self._size: int | None = block_size
        self._facts = RowFacts()
        self._tokens, self._blocks, self._last = array("q"), array("q"), array("q")
        self._counts: list[IntArray] = []
        self._kept: list[tuple[IntArray, npt.NDArray[np.int32], npt.NDArray[np.int8]]] = []
        self._replies = False

    def read(self, reading: Reading) -> KeptTouches:
        for rows in _pieces(reading, self._format):
            for row in rows:
                self._add_facts(row)
            self._add_touches(rows)
        if not len(self._tokens):
            raise reading.empty()
        return self._sorted(reading)

    def _add_facts(self, row: Row) -> None:
        self._check(row)
        self._facts.add(
            row.place,
            arrival_s=row.arrival_s,
            output_tokens=row.output_tokens,
            session=row.session,
            request_id=None,
        )
        self._tokens.append(row.prompt_tokens)
        self._blocks.append(len(row.ids))
        self._last.append(_signed(row.ids[-1]) if row.ids else -1 - len(self._last))
        self._replies |= row.has_reply

    def _check(self, row: Row) -> None:
        default = mooncake.DEFAULT_BLOCK_SIZE if self._format == mooncake.NAME else 16
        self._size = self._size or row.block_size or default
        if row.block_size not in (None, self._size):
            raise row.place.error(f"the row has block_size {row.block_size}, not {self._size}")
        full = row.prompt_tokens // self._size
        if len(row.ids) not in (full, -(-row.prompt_tokens // self._size)):
            raise row.place.error(
                f"{len(row.ids)} block ids do not fit {row.prompt_tokens} tokens in blocks of"
                f" {self._size}"
            )

    def _add_touches(self, rows: list[Row]) -> None:
        ids, lengths = _ids(rows), np.array([len(row.ids) for row in rows], np.int64)
        ends = np.cumsum(lengths)
        depth = np.arange(len(ids)) - np.repeat(ends - lengths, lengths)
        group = self._chosen.groups(ids)
        chosen = group >= -1
        row_of = np.repeat(np.arange(len(rows)), lengths)[chosen]
        self._counts.append(np.bincount(row_of, minlength=len(rows)))
        self._kept.append((ids[chosen], depth[chosen].astype(np.int32), group[chosen]))

    def _sorted(self, reading: Reading) -> KeptTouches:
        arrival_s, order, notes = order_by_arrival(self._facts)
        rows = np.arange(len(self._tokens)) if order is None else order
        ids, depth, group = (np.concatenate(part) for part in zip(*self._kept, strict=True))
        ptr, touch = _gather(np.concatenate(self._counts), rows)
        session, more = self._sessions(order)
        return KeptTouches(
            block_size=self._size or 1,
            prompt_tokens=np.array(self._tokens, np.int64)[rows],
            num_blocks=np.array(self._blocks, np.int64)[rows],
            last_id=np.array(self._last, np.int64)[rows],
            session=session,
            arrival_s=arrival_s,
            ptr=ptr,
            ids=ids[touch],
            depth=depth[touch],
            group=group[touch],
            warnings=(*reading.warnings(), *notes, *more, *([NO_REPLIES] if self._replies else [])),
        )

    def _sessions(self, order: IntArray | None) -> tuple[IntArray, list[str]]:
        codes = self._facts.session_codes(order)
        if np.all(codes == UNKNOWN):
            return np.arange(len(codes)), [NO_SESSIONS]
        own = np.where(codes == UNKNOWN, codes.max() + 1 + np.arange(len(codes)), codes)
        _, dense = np.unique(own, return_inverse=True)
        return dense.reshape(-1).astype(np.int64), []


def _gather(counts: IntArray, rows: IntArray) -> tuple[IntArray, IntArray]:
    """(ptr, touches): the kept touches of the rows in another order."""
    starts = np.cumsum(counts) - counts
    ptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(counts[rows], out=ptr[1:])
    return ptr, np.arange(ptr[-1]) + np.repeat(starts[rows] - ptr[:-1], counts[rows])


def _pieces(reading: Reading, format: str) -> Iterator[list[Row]]:
    if format not in FORMATS:
        raise InputError(
            f"a sample cannot be taken of the format {format!r}",
            where="--sample",
            remedy="one of " + ", ".join(FORMATS) + "; analyze --hashed-out makes the latter",
        )
    rows = _mooncake(reading) if format == mooncake.NAME else _hashed(reading)
    while piece := list(islice(rows, _ROWS_AT_ONCE)):
        yield piece


def _mooncake(reading: Reading) -> Iterator[Row]:
    for place, row in reading.rows(mooncake.Row):
        yield Row(
            place,
            row.hash_ids,
            row.input_length,
            row.session_id,
            None if row.timestamp is None else row.timestamp / 1000,
            row.output_length,
            row.block_size,
            has_reply=False,
        )


def _hashed(reading: Reading) -> Iterator[Row]:
    for place, row in reading.rows(hashed.Row):
        yield Row(
            place,
            row.hashes,
            row.prompt_tokens,
            row.session,
            row.timestamp_s,
            row.output_tokens,
            row.block_size,
            has_reply=bool(row.reply_hashes),
        )


def _ids(rows: list[Row]) -> IntArray:
    try:
        return np.array([value for row in rows for value in row.ids], np.int64)
    except OverflowError:
        return np.array([_signed(value) for row in rows for value in row.ids], np.int64)


def _signed(value: int) -> int:
    """Unsigned 64-bit ids are kept by their bits."""
    return value - 2**64 if value >= 2**63 else value
