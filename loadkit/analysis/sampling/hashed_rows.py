"""A log, or one shard of it, read once: its rows as columns, its block ids put aside.

Memory: about 100 B a row; the ids (8 B a touch) lie in a temporary file, or where the store keeps
them.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Protocol

import numpy as np
import numpy.typing as npt

from loadkit.analysis.sampling.choose import Chosen, TouchCounter, mixed
from loadkit.analysis.sampling.heavy import HeavyBlocks
from loadkit.core.csr import depths
from loadkit.core.errors import InputError
from loadkit.core.trace import IntArray
from loadkit.traces.id_rows import IdRow, as_signed, check_count
from loadkit.traces.reading import Name, Reading
from loadkit.traces.registry import IdStream
from loadkit.traces.rows import RowFacts, stable_hash

_ROWS_AT_ONCE = 1024
_TOUCHES_AT_ONCE = 1 << 18  # about 20 MB of columns


class IdStore(Protocol):
    """Where the ids of a log wait until it is known which of them are kept."""

    def append(self, ids: IntArray) -> None:
        """Put ids after those before."""

    def chunks(self, counts: IntArray) -> Iterator[IntArray]:
        """The ids of consecutive rows, `counts[k]` of them in the k-th array, from the first."""


class SpillFile:
    """Ids in a temporary file, 8 B each. InputError when the disk is full."""

    def __init__(self, file: IO[bytes]):
        self._file = file

    def append(self, ids: IntArray) -> None:
        try:
            self._file.write(ids.tobytes())
            self._file.flush()
        except OSError as error:
            raise InputError(
                f"the block ids cannot be put aside: {error.strerror}",
                where=tempfile.gettempdir(),
                remedy="set TMPDIR to a folder with room for 8 bytes a block",
            ) from error

    def chunks(self, counts: IntArray) -> Iterator[IntArray]:
        self._file.seek(0)
        for count in counts.tolist():
            yield np.frombuffer(self._file.read(8 * count), np.int64)


@dataclass(slots=True)
class RowColumns:
    """What stays of every row beside its ids; `links` only for formats that link their rows."""

    default_block_size: int
    asked_block_size: int | None
    block_size: int | None = None
    facts: RowFacts = field(default_factory=RowFacts)
    prompt_tokens: array[int] = field(default_factory=lambda: array("q"))
    num_blocks: array[int] = field(default_factory=lambda: array("q"))
    prompt_key: array[int] = field(default_factory=lambda: array("q"))
    keyless: array[int] = field(default_factory=lambda: array("q"))  # rows like no other
    links: list[tuple[Name, Name]] = field(default_factory=list)
    replies: bool = False
    one_clock: bool = True

    def __len__(self) -> int:
        return len(self.prompt_tokens)

    def add(self, row: IdRow) -> array[int]:
        """Append a row and give back its ids. FormatError, and nothing appended, if it misfits."""
        size = self._checked_size(row)
        check_count(row.place, row.prompt_tokens, len(row.ids), size)
        ids = as_signed(row.place, row.ids)
        self.facts.add(
            row.place,
            arrival_s=row.arrival_s,
            output_tokens=row.output_tokens,
            session=row.session,
            request_id=row.request_id,
        )
        self.block_size = size
        if row.prompt_key is None and not len(ids):
            self.keyless.append(len(self))
        self.prompt_tokens.append(row.prompt_tokens)
        self.num_blocks.append(len(ids))
        self.prompt_key.append(_prompt_key(row, ids))
        if row.link is not None:
            self.links.append(row.link)
        self.replies |= row.has_reply
        return ids

    def extend(self, other: RowColumns) -> None:
        """Append another shard's rows. FormatError if they are no part of the same log."""
        if len(other) and self.block_size not in (None, other.block_size):
            raise other.facts.place(0).error(
                f"blocks of {other.block_size}, where earlier rows have {self.block_size}",
                "rates do not carry across block sizes: analyze one block size at a time",
            )
        self.block_size = other.block_size or self.block_size
        self.keyless.extend(len(self) + row for row in other.keyless)
        self.facts.extend(other.facts)
        for name in ("prompt_tokens", "num_blocks", "prompt_key", "links"):
            getattr(self, name).extend(getattr(other, name))
        self.replies |= other.replies

    def _checked_size(self, row: IdRow) -> int:
        named = row.block_size
        size = self.block_size or self.asked_block_size or named or self.default_block_size
        if named not in (None, size):
            raise row.place.error(f"the row has block_size {named}, not {size}")
        return size


def read_rows(
    stream: IdStream,
    reading: Reading,
    block_size: int | None,
    store: IdStore,
    counter: TouchCounter,
) -> RowColumns:
    """Read a log to its end: facts of the rows, ids into `store`, touches counted."""
    columns = RowColumns(stream.default_block_size, block_size, one_clock=stream.one_clock)
    first, ids = 0, array("q")
    for row in stream.rows:
        with reading.row():
            ids.extend(columns.add(row))
        if len(ids) >= _TOUCHES_AT_ONCE or len(columns) - first >= _ROWS_AT_ONCE:
            _put_aside(columns, first, ids, store, counter)
            first, ids = len(columns), array("q")
    _put_aside(columns, first, ids, store, counter)
    return columns


def _put_aside(
    columns: RowColumns, first: int, ids: array[int], store: IdStore, counter: TouchCounter
) -> None:
    flat = np.array(ids, np.int64)
    store.append(flat)
    counter.add(flat, _positions(columns, first))


@dataclass(frozen=True, slots=True)
class Kept:
    """The chosen touches of some rows; n = rows, k = kept touches.

    A touch is of one light block, or of a node of heavy ones (see `HeavyBlocks`).
    """

    counts: IntArray  # (n,)
    ids: IntArray  # (k,) of a node its first block's
    weight: npt.NDArray[np.int32]  # (k,) blocks
    depth: npt.NDArray[np.int32]  # (k,) blocks above it in its chain
    group: npt.NDArray[np.int8]  # (k,) -1 heavy, else the group of a light block

    @staticmethod
    def joined(parts: Sequence[Kept]) -> Kept:
        """The rows of all parts, in their order; of none without a part."""
        nothing = np.zeros(0, np.int64)
        empty = _chosen_of(nothing, nothing, Chosen(1.0, nothing, 1, 0))
        names = Kept.__dataclass_fields__
        return Kept(
            *(np.concatenate([getattr(part, name) for part in parts or [empty]]) for name in names)
        )


def count_heavy(num_blocks: IntArray, store: IdStore, heavy: IntArray) -> HeavyBlocks:
    """Go through the ids of rows with so many blocks each and look how heavy ones follow another."""
    found = HeavyBlocks(heavy)
    for counts, ids in _in_pieces(num_blocks, store):
        found.add(counts, ids)
    return found


def choose_touches(num_blocks: IntArray, store: IdStore, chosen: Chosen) -> Kept:
    """Go through the ids again and keep the chosen ones."""
    parts = [_chosen_of(counts, ids, chosen) for counts, ids in _in_pieces(num_blocks, store)]
    return Kept.joined(parts)


def _in_pieces(num_blocks: IntArray, store: IdStore) -> Iterator[tuple[IntArray, IntArray]]:
    """Rows of some _TOUCHES_AT_ONCE touches at a time: blocks of each, and their ids."""
    ends = np.cumsum(num_blocks)
    cut = _cuts(ends)
    chunks = store.chunks(np.diff(np.concatenate([[0], ends])[cut]))
    for first, last, ids in zip(cut[:-1].tolist(), cut[1:].tolist(), chunks, strict=True):
        yield num_blocks[first:last], ids


def _cuts(ends: IntArray) -> IntArray:
    """Rows (first 0, last n) at which to cut, so that a piece has about _TOUCHES_AT_ONCE touches."""
    if not len(ends):
        return np.zeros(1, np.int64)
    marks = np.arange(_TOUCHES_AT_ONCE, int(ends[-1]) + _TOUCHES_AT_ONCE, _TOUCHES_AT_ONCE)
    rows = np.minimum(np.searchsorted(ends, marks) + 1, len(ends))
    cuts: IntArray = np.unique(np.concatenate([[0], rows, [len(ends)]]))
    return cuts


def _chosen_of(counts: IntArray, ids: IntArray, chosen: Chosen) -> Kept:
    group, weight = chosen.groups(ids)
    keep = (group >= -1) & (weight > 0)
    row = np.repeat(np.arange(len(counts)), counts)[keep]
    return Kept(
        counts=np.bincount(row, minlength=len(counts)).astype(np.int64),
        ids=ids[keep],
        weight=weight[keep],
        depth=depths(counts)[keep].astype(np.int32),
        group=group[keep],
    )


def _positions(columns: RowColumns, first: int) -> npt.NDArray[np.uint64]:
    """A number for every touch of the rows from `first` on that tells where in the log it stands.

    The same whoever reads the row: it is made of its file's name, its line, the prompt's length and
    the block's depth.
    """
    rows = range(first, len(columns))
    places = [columns.facts.place(row) for row in rows]
    named = {path: stable_hash(str(path)) for path in {place.path for place in places}}
    path = np.array([named[place.path] for place in places], np.int64).view(np.uint64)
    line = np.array([place.number for place in places], np.uint64)
    counts = np.array(columns.num_blocks[first:], np.int64)
    tokens = np.array(columns.prompt_tokens[first:], np.uint64)
    row_key = mixed(mixed(path ^ line, 1) ^ tokens, 2)
    return np.repeat(row_key, counts) + depths(counts).astype(np.uint64)


def _prompt_key(row: IdRow, ids: array[int]) -> int:
    """The row's own key, else one of its last id and length (ids are chained)."""
    if row.prompt_key is not None:
        return row.prompt_key
    return stable_hash(f"{ids[-1]} {row.prompt_tokens}") if len(ids) else 0
