"""When copies of a session start: near their template, as near as those who share with it are.

Documents and tasks live in bursts. Copies at the very time of their template would make reuse too
short (+5 to +40 points), copies spread evenly would tear bursts apart (-13 to -17). A copy moves by
about the distance to those sessions that share the most specific thing with its template.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from loadkit.core.jit import compiled
from loadkit.core.trace import FloatArray, IntArray
from loadkit.forecast.first_touches import FirstTouches
from loadkit.forecast.sample import Sample

Jitter = Literal["neighbour", "uniform"]
_NEIGHBOURS = 8  # the nearest alone is too noisy, the farthest tells nothing of the burst
_FEW = 3  # companions of what is rarely shared
_MIN_FEW = 10


def session_scales(sample: Sample, touches: FirstTouches) -> tuple[FloatArray, FloatArray]:
    """(delta, rare): per session (s,) the distance in seconds to the min(8, m)-th nearest other
    session at the deepest shared node of its first request, inf if it shares nothing; and the
    distances of those whose node is rarely shared, for sessions that share nothing."""
    deepest = _deepest_shared(sample.num_sessions, touches)
    some = np.flatnonzero(deepest >= 0)
    order = np.lexsort((touches.time_s, touches.node))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    pairs = deepest[some]
    delta = np.full(sample.num_sessions, np.inf)
    delta[some] = _neighbour_distance(
        place[pairs],
        np.minimum(touches.others[pairs], _NEIGHBOURS),
        touches.node[order],
        touches.time_s[order],
    )
    rare = (touches.others[pairs] <= _FEW) & (touches.depth[pairs] > 0)
    return delta, delta[some][rare]


def start_shifts(
    sample: Sample,
    touches: FirstTouches,
    num_copies: int,
    random: np.random.Generator,
    jitter: Jitter = "neighbour",
) -> FloatArray:
    """(s, num_copies) seconds by which the copies of each session start later than it did.

    Starts are reflected into [0, window - duration], so that gaps inside a session are kept.
    """
    uniform = random.random((sample.num_sessions, num_copies)) * sample.window_s
    shift = uniform - sample.first_s[:, None]
    if jitter == "neighbour":
        delta, rare = session_scales(sample, touches)
        if len(rare) >= _MIN_FEW:
            lonely = ~np.isfinite(delta)
            delta[lonely] = random.choice(rare, int(lonely.sum()))
        known = np.isfinite(delta)
        laplace = random.laplace(size=(int(known.sum()), num_copies))
        shift[known] = laplace * delta[known][:, None]
    return _reflected(sample, shift)


def _reflected(sample: Sample, shift: FloatArray) -> FloatArray:
    duration = sample.last_s - sample.first_s
    span = np.maximum(sample.window_s - duration, 1e-6)[:, None]
    start = np.mod(sample.first_s[:, None] + shift, 2 * span)
    inside: FloatArray = span - np.abs(start - span)
    return inside - sample.first_s[:, None]


def _deepest_shared(num_sessions: int, touches: FirstTouches) -> IntArray:
    """(s,) the pair with the deepest shared node of each session's first request, -1 for none."""
    shared = np.flatnonzero(touches.at_start & (touches.others >= 1))
    order = shared[np.argsort(touches.depth[shared], kind="stable")]
    deepest = np.full(num_sessions, -1, np.int64)
    deepest[touches.session[order]] = order  # the last assignment, the deepest, stays
    return deepest


@compiled
def _neighbour_distance(
    places: IntArray, ranks: IntArray, node: IntArray, time: FloatArray
) -> FloatArray:
    """Distance to the rank-th nearest touch of the same node; pairs are sorted by (node, time)."""
    out = np.empty(len(places))
    for i in range(len(places)):
        here = places[i]
        before, after = here - 1, here + 1
        gap = np.inf
        for _ in range(ranks[i]):
            left = right = np.inf
            if before >= 0 and node[before] == node[here]:
                left = time[here] - time[before]
            if after < len(node) and node[after] == node[here]:
                right = time[after] - time[here]
            gap = min(left, right)
            if left <= right:
                before -= 1
            else:
                after += 1
        out[i] = gap
    return out
