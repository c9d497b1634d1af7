"""Requests sampled one by one, torn from their sessions, made into a sample of whole sessions.

A random share p of all requests has as many of turn T as p times the sessions that reach turn T. So
n_T - n_(T+1) of them stand for sessions that end at turn T, and for all T together these are as many
sessions, with as many requests, as a share p of whole sessions would have. Which of the requests of
turn T ended there is not to be seen: they are drawn by lot, among those that open alike, since how
long sessions last goes with what they are about. Their earlier turns are read off their messages; the
time between turns is taken from sessions of which several requests are in the log.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from loadkit.core.csr import places, pointers
from loadkit.core.trace import FloatArray, IntArray, Trace
from loadkit.forecast.turns import Turns, TurnSource

MIN_STRATUM = 100  # requests that open alike, to be judged by themselves
MIN_GAPS = 30  # pairs of requests of one session, to tell how far turns are apart


@dataclass(frozen=True, slots=True)
class Mended:
    """Whole sessions made of torn requests. times: traffic of the log / that of the trace."""

    trace: Trace
    times: float
    num_gaps: int  # seen times between turns; below MIN_GAPS times inside sessions mean nothing
    before_share: (
        float | None
    )  # of later turns, those whose turn before is in the log; None: no such


def mend(trace: Trace, source: TurnSource, random: np.random.Generator) -> Mended:
    """Build the sample of sessions. The trace's sessions, inferred or not, say which requests are of
    one session: only one of them may stand for it."""
    counts = source.counts
    chosen = _chosen(trace, counts, random)
    turns = source.of(chosen)
    gaps = seen_gaps(trace, counts)
    whole = _sessions(trace, chosen, turns, gaps, random)
    if len(gaps) < MIN_GAPS:
        whole = replace(whole, arrival_s=None)  # their order is all that is known
    times = trace.num_requests / max(whole.num_requests, 1)
    return Mended(whole, times, len(gaps), before_share(trace, counts))


def before_share(trace: Trace, counts: IntArray) -> float | None:
    """Share of later turns whose turn before is in the log; None if there are no later turns."""
    later = np.flatnonzero(counts > 1)
    if not len(later):
        return None
    most = int(counts.max()) + 1
    seen = np.unique(trace.session * most + counts)
    before = trace.session[later] * most + counts[later] - 1
    return float(np.isin(before, seen).mean())


def seen_gaps(trace: Trace, counts: IntArray) -> FloatArray:
    """Seconds a turn between requests of one session that are both in the log.

    Of turns that follow each other, if there are enough; those farther apart tell only the mean of
    several, which never is as short as the shortest.
    """
    if trace.arrival_s is None:
        return np.zeros(0)
    rows = np.flatnonzero(counts > 0)
    rows = rows[np.lexsort((trace.arrival_s[rows], counts[rows], trace.session[rows]))]
    steps = np.diff(counts[rows])
    waited = np.diff(trace.arrival_s[rows])
    pairs = (np.diff(trace.session[rows]) == 0) & (steps > 0) & (waited > 0)
    gaps: FloatArray = waited[pairs] / steps[pairs]
    for farthest in (1, 2, 4):
        near: FloatArray = gaps[steps[pairs] <= farthest]
        if len(near) >= MIN_GAPS:
            return near
    return gaps


def _chosen(trace: Trace, counts: IntArray, random: np.random.Generator) -> IntArray:
    """Requests that stand for whole sessions, from the last turns to the first."""
    stratum = _strata(trace, counts)
    used: dict[int, int] = {}
    out: list[int] = []
    for index in np.unique(stratum[stratum >= 0]):
        rows = random.permutation(np.flatnonzero(stratum == index))
        ends = sessions_ending(np.bincount(counts[rows]), random)
        owed = 0
        for turn in range(len(ends) - 1, 0, -1):
            owed += int(ends[turn])
            for row in rows[counts[rows] == turn]:
                if owed and used.setdefault(int(trace.session[row]), turn) == turn:
                    out.append(int(row))
                    owed -= 1
    return np.sort(np.array(out, np.int64))


def sessions_ending(reaching: IntArray, random: np.random.Generator) -> IntArray:
    """How many sessions end at each turn, from how many requests there are of each (0: none).

    Made non-increasing first (pool adjacent violators), and rounded by lot.
    """
    smooth = _non_increasing(reaching[1:].astype(np.float64))
    ends = smooth - np.append(smooth[1:], 0.0)
    whole = np.floor(ends + random.random(len(ends))).astype(np.int64)
    return np.append(0, whole)


def _non_increasing(values: FloatArray) -> FloatArray:
    """Least squares fit that never rises: neighbours that would rise share their mean."""
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, size = float(value), 1
        while pools and pools[-1][0] < mean:
            before, many = pools.pop()
            mean, size = (before * many + mean * size) / (many + size), many + size
        pools.append((mean, size))
    return np.repeat([mean for mean, _ in pools], [size for _, size in pools])


def _strata(trace: Trace, counts: IntArray) -> IntArray:
    """(n,) requests by their first block; rare openings together; -1 where turns are unknown."""
    blocks = np.diff(trace.block_ptr)
    opening = np.full(trace.num_requests, -1, np.int64)
    opening[blocks > 0] = trace.block_ids[trace.block_ptr[:-1][blocks > 0]]
    _, stratum, size = np.unique(opening, return_inverse=True, return_counts=True)
    stratum = stratum.reshape(-1) + 1
    stratum[size[stratum - 1] < MIN_STRATUM] = 0
    stratum[counts <= 0] = -1
    return stratum


def _sessions(
    trace: Trace, chosen: IntArray, turns: Turns, gaps: FloatArray, random: np.random.Generator
) -> Trace:
    """The chosen requests with their earlier turns, in order of arrival; what was sent before the log
    began is left out, as a log of sessions would."""
    row = np.repeat(chosen, turns.counts)
    session = np.repeat(np.arange(len(chosen)), turns.counts)
    is_last = np.zeros(len(row), np.bool_)
    is_last[turns.ptr[1:] - 1] = True
    arrival, order = _times(trace, turns, row, gaps, random)
    size = trace.block_size
    given = np.diff(trace.block_ptr)[row]
    length = np.where(is_last, given, np.minimum(turns.prompt_tokens // size, given))[order]
    ptr, ids = _prefixes(trace.block_ptr, trace.block_ids, row[order], length)
    sessions = np.unique(session[order], return_inverse=True)[1].reshape(-1)
    resident = _residents(trace, turns, row, is_last, order)
    page = None if trace.partial_page is None else turns.kept_tokens[order] % size != 0
    return Trace(
        block_size=size,
        prompt_tokens=turns.prompt_tokens[order],
        block_ptr=ptr,
        block_ids=ids,
        prompt_key=turns.key[order],
        session=sessions.astype(np.int64),
        num_sessions=int(sessions.max(initial=-1)) + 1,
        sessions_inferred=False,
        output_tokens=np.full(len(order), -1, np.int64),
        arrival_s=arrival,
        resident_ptr=None if resident is None else resident[0],
        resident_ids=None if resident is None else resident[1],
        partial_page=page,
        warnings=trace.warnings,
    )


def _times(
    trace: Trace, turns: Turns, row: IntArray, gaps: FloatArray, random: np.random.Generator
) -> tuple[FloatArray | None, IntArray]:
    """(arrival, order) of all turns: each as long before the next as turns were seen to be."""
    if trace.arrival_s is None:
        return None, np.arange(len(row))
    pool = gaps if len(gaps) >= MIN_GAPS else np.array([1e-6])
    waits = random.choice(pool, len(row))
    waits[turns.ptr[1:] - 1] = 0
    upto = np.cumsum(waits)
    before_end = np.repeat(upto[turns.ptr[1:] - 1], turns.counts) - upto + waits
    arrival = trace.arrival_s[row] - before_end
    order = np.argsort(arrival, kind="stable")
    order = order[arrival[order] >= trace.arrival_s[0]]
    return arrival[order], order


def _residents(
    trace: Trace, turns: Turns, row: IntArray, last: np.ndarray, order: IntArray
) -> tuple[IntArray, IntArray] | None:
    """Chains that turns leave in the cache: of the last one as logged, of earlier ones up to where
    the next turn's new text begins; None where the log has no replies."""
    if trace.resident_ptr is None or trace.resident_ids is None:
        return None
    given = np.diff(trace.block_ptr)[row]
    earlier = np.minimum(turns.kept_tokens // trace.block_size, given)
    whole = np.diff(trace.resident_ptr)[row]
    # A reply's chain begins with its prompt's, so one array serves both.
    length = np.where(last, whole, np.minimum(earlier, whole))[order]
    return _prefixes(trace.resident_ptr, trace.resident_ids, row[order], length)


def _prefixes(
    ptr: IntArray, ids: IntArray, row: IntArray, length: IntArray
) -> tuple[IntArray, IntArray]:
    """The first `length` ids of the chains of these rows, as a CSR."""
    return pointers(length), ids[places(ptr[row], length)]
