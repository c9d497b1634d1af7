"""Logs that carry block ids: rows to columns, the checks every such log must pass, the Trace."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from loadkit.core.trace import UNKNOWN, FloatArray, IntArray, Trace
from loadkit.traces.lines import Place
from loadkit.traces.sessions import INFERRED, dense_sessions, infer_sessions

_TWO_PARENTS = (
    "the ids are no chained prefix hashes; this file was generated or its ids are per-block hashes"
)


@dataclass
class Columns:
    """Rows as they are read, before any is checked against another."""

    places: list[Place] = field(default_factory=list)
    arrival_s: list[float | None] = field(default_factory=list)
    prompt_tokens: list[int] = field(default_factory=list)
    output_tokens: list[int | None] = field(default_factory=list)
    session: list[str | int | None] = field(default_factory=list)
    num_ids: list[int] = field(default_factory=list)
    ids: array[int] = field(default_factory=lambda: array("q"))

    def add_ids(self, place: Place, ids: Sequence[int]) -> None:
        """Append a row's ids; unsigned 64-bit ids are kept by their bits."""
        try:
            packed = array("q", ids)
        except OverflowError:
            packed = array("q", [_as_signed(place, value) for value in ids])
        self.ids.extend(packed)
        self.num_ids.append(len(packed))


def trace_of(columns: Columns, block_size: int) -> Trace:
    """Check all rows against each other and build the Trace, in order of arrival.

    FormatError names the first row whose id count does not fit its length, or whose ids are no
    prefix chain.
    """
    prompt_tokens = np.array(columns.prompt_tokens, np.int64)
    counts = np.array(columns.num_ids, np.int64)
    _check_counts(columns, prompt_tokens, counts, block_size)
    ptr = _pointers(counts)
    ids = np.frombuffer(columns.ids, np.int64) if len(columns.ids) else np.zeros(0, np.int64)
    values, first, dense = np.unique(ids, return_index=True, return_inverse=True)
    _check_single_parent(columns, ptr, values, first, dense)
    arrival_s, order, warnings = order_by_arrival(columns.arrival_s, columns.places)
    if order is not None:
        ptr, dense = take_chains(ptr, dense, order)
        prompt_tokens = prompt_tokens[order]
    else:
        order = np.arange(len(prompt_tokens))
    names = [columns.session[row] for row in order]
    full_blocks = np.minimum(np.diff(ptr), prompt_tokens // block_size)
    session, inferred, notes = resolve_sessions(names, ptr, dense, full_blocks)
    outputs = [columns.output_tokens[row] for row in order]
    return Trace(
        block_size=block_size,
        prompt_tokens=prompt_tokens,
        block_ptr=ptr,
        block_ids=dense,
        prompt_key=_prompt_keys(ptr, dense, prompt_tokens),
        session=session,
        num_sessions=int(session.max(initial=-1)) + 1,
        sessions_inferred=inferred,
        output_tokens=np.array([UNKNOWN if n is None else n for n in outputs], np.int64),
        arrival_s=arrival_s,
        warnings=(*warnings, *notes),
    )


def resolve_sessions(
    names: Sequence[str | int | None], ptr: IntArray, ids: IntArray, full_blocks: IntArray
) -> tuple[IntArray, bool, list[str]]:
    """Session ids from names, or by containment when no row has one; True says inferred."""
    if all(name is None for name in names):
        return infer_sessions(ptr, ids, full_blocks), True, [INFERRED]
    session, warnings = dense_sessions(names)
    return session, False, warnings


def order_by_arrival(
    times: Sequence[float | None], places: Sequence[Place]
) -> tuple[FloatArray | None, IntArray | None, list[str]]:
    """Sorted arrival times, the order that sorts the rows (None: they are sorted), warnings.

    Times are None when no row has one. FormatError if only some rows have one.
    """
    missing = [row for row, time in enumerate(times) if time is None]
    if len(missing) == len(times):
        return None, None, ["the log has no timestamps: requests are taken in the order given"]
    if missing:
        raise places[missing[0]].error(
            "no timestamp, but other rows have one", "give every row a timestamp, or none"
        )
    arrival_s = np.array(times, np.float64)
    backwards = int(np.sum(np.diff(arrival_s) < 0))
    if not backwards:
        return arrival_s, None, []
    order = np.argsort(arrival_s, kind="stable")
    return arrival_s[order], order, [f"timestamps go backwards {backwards} times: rows were sorted"]


def take_chains(ptr: IntArray, ids: IntArray, order: IntArray) -> tuple[IntArray, IntArray]:
    """The chains of a CSR in another order."""
    counts = np.diff(ptr)[order]
    new_ptr = _pointers(counts)
    touch = np.arange(new_ptr[-1]) - np.repeat(new_ptr[:-1], counts) + np.repeat(ptr[order], counts)
    return new_ptr, ids[touch]


def _pointers(counts: IntArray) -> IntArray:
    ptr = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=ptr[1:])
    return ptr


def _as_signed(place: Place, value: int) -> int:
    if not -(2**63) <= value < 2**64:
        raise place.error(f"block id {value} does not fit 64 bits")
    return value - 2**64 if value >= 2**63 else value


def _check_counts(
    columns: Columns, prompt_tokens: IntArray, counts: IntArray, block_size: int
) -> None:
    floor, ceil = prompt_tokens // block_size, -(-prompt_tokens // block_size)
    bad = np.flatnonzero((counts != floor) & (counts != ceil))
    if not len(bad):
        return
    row = int(bad[0])
    length, count = int(prompt_tokens[row]), int(counts[row])
    raise columns.places[row].error(
        f"{count} block ids do not fit {length} tokens in blocks of {block_size}"
        f" (expected {floor[row]} or {ceil[row]})",
        _block_size_hint(length, count),
    )


def _block_size_hint(length: int, count: int) -> str:
    for size in (2**power for power in range(12)):
        if count in (length // size, -(-length // size)):
            return f"blocks of {size} would fit this row: --block-size {size}"
    return "no usual block size fits this row: is the length right?"


def _check_single_parent(
    columns: Columns, ptr: IntArray, values: IntArray, first: IntArray, dense: IntArray
) -> None:
    """Refuse ids with two parents; a row that repeats an id always has one such."""
    parent = np.empty(len(dense), np.int64)
    parent[1:] = dense[:-1]
    parent[ptr[:-1][np.diff(ptr) > 0]] = -1
    bad = np.flatnonzero(parent != parent[first][dense])
    if not len(bad):
        return
    touch = int(bad[0])
    here = columns.places[int(np.searchsorted(ptr, touch, side="right")) - 1]
    before = columns.places[int(np.searchsorted(ptr, first[dense[touch]], side="right")) - 1]
    block = int(values[dense[touch]])
    if here == before:
        raise here.error(f"block id {block} occurs twice in the row", _TWO_PARENTS)
    raise here.error(f"block id {block} has another parent than in {before}", _TWO_PARENTS)


def _prompt_keys(ptr: IntArray, ids: IntArray, prompt_tokens: IntArray) -> IntArray:
    """Dense key of (last id, length): ids are chained, so the last one stands for all.

    A prompt without any id is known to be equal to no other.
    """
    last = -1 - np.arange(len(prompt_tokens))
    some = np.diff(ptr) > 0
    last[some] = ids[ptr[1:][some] - 1]
    pairs = np.stack([last, prompt_tokens], axis=1)
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def uniform_block_size(sizes: Mapping[int, Place], asked: int | None, default: int) -> int:
    """The log's one block size: asked for, else named by its rows, else the format's default.

    `sizes` maps every size that rows name to the first such row.
    """
    for size, place in sizes.items():
        expected = asked or next(iter(sizes))
        if size != expected:
            raise place.error(
                f"the row has block_size {size}, "
                + (f"asked for {asked}" if asked else f"earlier ones {expected}"),
                "rates do not carry across block sizes: analyze one block size at a time",
            )
    return asked or next(iter(sizes), default)
