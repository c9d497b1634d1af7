"""Reuse over time: how soon blocks come again, and how many are in use within a time."""

from __future__ import annotations

import msgspec
import numpy as np

from loadkit.core.jit import compiled
from loadkit.core.trace import FloatArray, IntArray, Trace

LENGTHS_S = (1.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)


class ReuseWithin(msgspec.Struct, frozen=True):
    """share of reuses (touches of a block touched before) at most this long after the last touch."""

    seconds: float
    share: float


class WorkingSet(msgspec.Struct, frozen=True):
    """Distinct blocks touched within the last `seconds`, on average over the log (Denning, 1968).

    The average runs from `seconds` after the first arrival to the last one.
    """

    seconds: float
    mean_blocks: float
    mean_tokens: float


def over_time(trace: Trace) -> tuple[tuple[ReuseWithin, ...] | None, tuple[WorkingSet, ...] | None]:
    """Reuse-time curve and working-set curve; None without arrival times (or, the first, reuse).

    Only lengths below the log's own length are given.
    """
    if trace.arrival_s is None or not trace.num_blocks:
        return None, None
    span = float(trace.arrival_s[-1] - trace.arrival_s[0])
    lengths = np.array([length for length in LENGTHS_S if length < span])
    ages, covered = _pass(
        trace.block_ptr, trace.block_ids, trace.arrival_s, lengths, np.full(trace.num_ids, np.nan)
    )
    total = int(ages.sum())
    within = np.cumsum(ages[:-1])
    sets = covered / (span - lengths)
    return (
        tuple(
            ReuseWithin(float(length), int(count) / total)
            for length, count in zip(lengths, within, strict=True)
        )
        if total
        else None,
        tuple(
            WorkingSet(float(length), float(blocks), float(blocks * trace.block_size))
            for length, blocks in zip(lengths, sets, strict=True)
        ),
    )


@compiled
def _pass(
    ptr: IntArray, ids: IntArray, arrival_s: FloatArray, lengths: FloatArray, last: FloatArray
) -> tuple[IntArray, FloatArray]:
    """Reuses by age class (k + 1,), and seconds times blocks in use for each length (k,).

    A block touched at u is in the working set of length T from u until it is touched again or T has
    passed; only moments from T after the start to the end count.
    """
    ages = np.zeros(len(lengths) + 1, np.int64)
    covered = np.zeros(len(lengths))
    start, end = arrival_s[0], arrival_s[-1]
    for request in range(len(ptr) - 1):
        now = arrival_s[request]
        for touch in range(ptr[request], ptr[request + 1]):
            then = last[ids[touch]]
            last[ids[touch]] = now
            if np.isnan(then):
                continue
            k = 0
            while k < len(lengths) and now - then > lengths[k]:
                k += 1
            ages[k] += 1
            _cover(covered, lengths, start, then, now)
    for then in last:
        if not np.isnan(then):
            _cover(covered, lengths, start, then, end)
    return ages, covered


@compiled
def _cover(
    covered: FloatArray, lengths: FloatArray, start: float, touched: float, until: float
) -> None:
    """Add the time that a block touched then, and again at `until`, is in each working set."""
    for k in range(len(lengths)):
        begin = max(touched, start + lengths[k])
        covered[k] += max(0.0, min(touched + lengths[k], until) - begin)
