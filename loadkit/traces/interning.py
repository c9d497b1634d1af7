"""64-bit block ids -> dense ids, a few hundred thousand touches at a time, in arrays.

Memory: 8 B a touch for the dense ids; 12 B a distinct block and 8 to 16 B for its slot while the
log is read, freed with the table.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from loadkit.core.csr import pointers
from loadkit.core.jit import compiled
from loadkit.core.trace import IntArray

AnyInt = TypeVar("AnyInt", bound=np.signedinteger[Any])
SmallInts = npt.NDArray[np.int32]

ROOT = -1
_CHUNK = 1 << 18
_MAX_DISTINCT = 2**31 - 1


class IdTable:
    """Dense ids in order of first appearance, with the parent that each id had there.

    chained: an id stands for a whole prefix, so it must always follow the same parent; `clash` is
    the first touch where one does not. Not chained: an id stands for a single block, and the same
    id after another parent is another block.
    """

    def __init__(self, *, chained: bool = True):
        self.chained = chained
        self.num_ids = 0
        self._slots = np.full(1 << 12, -1, np.int32)
        self._values, self._parents = np.empty(1 << 11, np.int64), np.empty(1 << 11, np.int32)

    def intern(self, ids: IntArray, counts: IntArray) -> tuple[IntArray, int]:
        """Dense ids of chains of `counts` ids each, and the touch of the first clash (-1: none).

        Each chain starts at the root. OverflowError beyond 2^31 distinct blocks.
        """
        self._make_room(len(ids))
        dense = np.empty(len(ids), np.int64)
        self.num_ids, clash = _intern(
            ids, counts, dense, self._slots, self._values, self._parents, self.num_ids, self.chained
        )
        return dense, int(clash)

    def value(self, dense_id: int) -> int:
        """The id as it stands in the log (as a signed 64-bit integer)."""
        return int(self._values[dense_id])

    def values(self) -> IntArray:
        """(num_ids,) all ids as they stand in the log, by dense id."""
        return self._values[: self.num_ids].copy()

    def num_values(self) -> int:
        """Distinct ids as they stand in the log: fewer than num_ids if some had several parents."""
        return len(np.unique(self._values[: self.num_ids]))

    def release(self) -> None:
        """Give the memory back once the last chain has its ids; `num_ids` stays."""
        self._slots, self._parents = np.full(1, -1, np.int32), np.empty(0, np.int32)
        self._values = np.empty(0, np.int64)

    def _make_room(self, new: int) -> None:
        most = self.num_ids + new
        if most > _MAX_DISTINCT:
            raise OverflowError("more than 2^31 distinct blocks")
        if most > len(self._values):
            room = max(most, len(self._values) * 3 // 2)
            self._values = _grown(self._values, room, self.num_ids)
            self._parents = _grown(self._parents, room, self.num_ids)
        if 4 * most > 3 * len(self._slots):
            size = len(self._slots)
            while 4 * most > 3 * size:
                size *= 2
            self._slots = np.full(size, -1, np.int32)
            _refill(self._slots, self._values, self._parents, self.num_ids, self.chained)


class ChainStore:
    """Chains of ids, row by row, as one CSR of dense ids. Stores may share a table."""

    def __init__(self, table: IdTable):
        self.table = table
        self.counts = array("q")
        self._waiting, self._done = array("q"), 0
        self._dense = array("q")
        self._clash: tuple[int, int] | None = None  # row, dense id

    def add(self, ids: Sequence[int]) -> None:
        """Append a row. OverflowError for an id beyond signed 64 bits: nothing is appended then."""
        before = len(self._waiting)
        try:
            self._waiting.extend(ids)
        except (OverflowError, TypeError):
            del self._waiting[before:]
            raise
        self.counts.append(len(ids))
        if len(self._waiting) >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        """Give the rows added so far their dense ids."""
        counts = np.array(self.counts[self._done :], np.int64)
        dense, clash = self.table.intern(np.array(self._waiting, np.int64), counts)
        if clash >= 0 and self._clash is None:
            row = int(np.searchsorted(np.cumsum(counts), clash, side="right"))
            self._clash = self._done + row, int(dense[clash])
        self._dense.frombytes(dense.tobytes())
        self._done, self._waiting = len(self.counts), array("q")

    @property
    def ptr(self) -> IntArray:
        return pointers(np.array(self.counts, np.int64))

    def ids(self) -> IntArray:
        """All dense ids, (m,), without a copy. Call it once, at the end: rows cannot follow it."""
        self.flush()
        return np.frombuffer(self._dense, np.int64) if self._dense else np.zeros(0, np.int64)

    @property
    def clash(self) -> tuple[int, int] | None:
        """Row and dense id of the first id that followed another parent than before; see `ids`."""
        return self._clash


def dense_by_appearance(keys: IntArray) -> IntArray:
    """0, 1, ... in order of first appearance; equal where the keys are equal."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse.reshape(-1)]


def chained_ids(ids: IntArray) -> array[int]:
    """Ids of single blocks as ids of whole prefixes, by hashing each with what stands before it."""
    return array("q", _chained(ids).tobytes())


def renumber(num_ids: int, *columns: IntArray) -> SmallInts:
    """Give dense ids new numbers, in place, in order of appearance in the columns.

    The same requests then have the same ids whatever order their rows were read in. Returns the new
    number of every old one, (num_ids,), -1 for one that is in no column.
    """
    number = np.full(num_ids, -1, np.int32)
    next_number = 0
    for column in columns:
        next_number = _renumber(column, number, next_number)
    return number


def take_chains(ptr: IntArray, ids: IntArray, order: IntArray) -> tuple[IntArray, IntArray]:
    """The chains of a CSR in another order."""
    new_ptr = pointers(np.diff(ptr)[order])
    return new_ptr, _taken(ptr, ids, order, new_ptr)


def join_chains(
    ptr: IntArray, ids: IntArray, more_ptr: IntArray, more_ids: IntArray
) -> tuple[IntArray, IntArray]:
    """Each row's chain with another row's after it."""
    new_ptr = ptr + more_ptr
    return new_ptr, _joined(ptr, ids, more_ptr, more_ids, new_ptr)


def _grown(old: npt.NDArray[AnyInt], room: int, used: int) -> npt.NDArray[AnyInt]:
    new = np.empty(room, old.dtype)
    new[:used] = old[:used]
    return new


@compiled
def _chained(ids: IntArray) -> IntArray:
    out = np.empty(len(ids), np.int64)
    parent = np.uint64(0x2545F4914F6CDD1D)  # a root that no short id gives
    for k in range(len(ids)):
        x = np.uint64(ids[k]) ^ (parent * np.uint64(0x9E3779B97F4A7C15) + np.uint64(k))
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        parent = x ^ (x >> np.uint64(31))
        out[k] = np.int64(parent)
    return out


@compiled
def _renumber(column: IntArray, number: SmallInts, next_number: int) -> int:
    for touch in range(len(column)):
        old = column[touch]
        if number[old] < 0:
            number[old] = next_number
            next_number += 1
        column[touch] = number[old]
    return next_number


@compiled
def _taken(ptr: IntArray, ids: IntArray, order: IntArray, new_ptr: IntArray) -> IntArray:
    out = np.empty(new_ptr[-1], np.int64)
    for row in range(len(order)):
        start, length = ptr[order[row]], new_ptr[row + 1] - new_ptr[row]
        out[new_ptr[row] : new_ptr[row + 1]] = ids[start : start + length]
    return out


@compiled
def _joined(
    ptr: IntArray, ids: IntArray, more_ptr: IntArray, more_ids: IntArray, new_ptr: IntArray
) -> IntArray:
    out = np.empty(new_ptr[-1], np.int64)
    for row in range(len(ptr) - 1):
        middle = new_ptr[row] + ptr[row + 1] - ptr[row]
        out[new_ptr[row] : middle] = ids[ptr[row] : ptr[row + 1]]
        out[middle : new_ptr[row + 1]] = more_ids[more_ptr[row] : more_ptr[row + 1]]
    return out


@compiled
def _slot_of(value: int, parent: int, mask: int, chained: bool) -> Any:
    """splitmix64's finaliser; the parent is part of the key only if ids stand for single blocks."""
    x = np.uint64(value)
    if not chained:
        x ^= np.uint64(parent + 1) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((x ^ (x >> np.uint64(31))) & np.uint64(mask))


@compiled
def _intern(
    ids: IntArray,
    counts: IntArray,
    dense: IntArray,
    slots: SmallInts,
    values: IntArray,
    parents: SmallInts,
    num_ids: int,
    chained: bool,
) -> tuple[int, int]:
    mask, clash, touch = len(slots) - 1, -1, 0
    for row in range(len(counts)):
        parent = ROOT
        for _ in range(counts[row]):
            value = ids[touch]
            slot = _slot_of(value, parent, mask, chained)
            found = slots[slot]
            while found >= 0 and not (
                values[found] == value and (chained or parents[found] == parent)
            ):
                slot = (slot + 1) & mask
                found = slots[slot]
            if found < 0:
                found = num_ids
                num_ids += 1
                slots[slot], values[found], parents[found] = found, value, parent
            elif parents[found] != parent and clash < 0:
                clash = touch
            dense[touch] = parent = found
            touch += 1
    return num_ids, clash


@compiled
def _refill(
    slots: SmallInts, values: IntArray, parents: SmallInts, num_ids: int, chained: bool
) -> None:
    mask = len(slots) - 1
    for found in range(num_ids):
        slot = _slot_of(values[found], parents[found], mask, chained)
        while slots[slot] >= 0:
            slot = (slot + 1) & mask
        slots[slot] = found
