"""Do the sessions that share a node come in bursts, and how long do these last?

For every node that opens sessions: how near in time is the min(8, m)-th nearest of its m
companions, and would it be as near if companions came at random among all sessions? The answer is a
p-value, uniform if they do. Where small p-values are in excess, the excess is bursts; the share of
the rest among p-values of that size (the local false discovery rate) is the probability that a
near companion is near by chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from loadkit.core.jit import compiled
from loadkit.core.trace import BoolArray, FloatArray, IntArray
from loadkit.forecast.first_touches import FirstTouches
from loadkit.forecast.sample import Sample

NEIGHBOURS = 8  # the nearest alone is too noisy, the farthest tells nothing of the burst
FEW = 3  # companions of what is rarely shared
_GROUPS = (1, 2, 4, NEIGHBOURS + 1)  # least m of the groups that are judged together
_MIN_GROUP = 10


@dataclass(frozen=True, slots=True)
class Openings:
    """Nodes of the sessions' first requests, o in all, sorted by session and depth.

    scale_s is the distance in seconds to the min(8, m)-th nearest companion, by_chance the
    probability that it is so near without any burst; inf and 1 for nodes without companions.
    """

    session: IntArray  # (o,)
    node: IntArray  # (o,)
    depth: IntArray  # (o,)
    others: IntArray  # (o,)
    scale_s: FloatArray  # (o,)
    by_chance: FloatArray  # (o,)

    def rare(self) -> BoolArray:
        """(o,) nodes below the root that few sessions share: what lone nodes will be like."""
        return (self.others >= 1) & (self.others <= FEW) & (self.depth > 0)


def openings(sample: Sample, touches: FirstTouches) -> Openings:
    """Measure the distances and judge them."""
    pairs = np.flatnonzero(touches.at_start)
    pairs = pairs[np.lexsort((touches.depth[pairs], touches.session[pairs]))]
    others = touches.others[pairs]
    rank = np.minimum(others, NEIGHBOURS)
    scale = _distances(touches, pairs, rank)
    chance = np.ones(len(pairs))
    shared = others >= 1
    p_value = chance_of_nearness(
        np.sort(sample.first_s), touches.time_s[pairs[shared]], scale[shared], others[shared]
    )
    group = np.searchsorted(_GROUPS, others[shared], side="right")
    chance[shared] = _by_group(p_value, group)
    return Openings(
        touches.session[pairs], touches.node[pairs], touches.depth[pairs], others, scale, chance
    )


def chance_of_nearness(
    starts_s: FloatArray, at_s: FloatArray, distance_s: FloatArray, companions: IntArray
) -> FloatArray:
    """P(the min(8, m)-th nearest of m companions is within the distance), companions being drawn
    from all session starts (sorted)."""
    inside = np.searchsorted(starts_s, at_s + distance_s, side="right")
    inside -= np.searchsorted(starts_s, at_s - distance_s, side="left")
    near = np.clip((inside - 1) / max(len(starts_s) - 1, 1), 1e-12, 1 - 1e-12)
    rank = np.minimum(companions, NEIGHBOURS)
    fewer = np.zeros(len(at_s))
    binomial = np.ones(len(at_s))
    for j in range(NEIGHBOURS):
        if j:
            binomial = binomial * np.maximum(companions - j + 1, 0) / j
        log_term = j * np.log(near) + (companions - j) * np.log1p(-near)
        fewer += np.where(j < rank, binomial * np.exp(log_term), 0.0)
    return np.clip(1 - fewer, 0, 1)


def false_discovery_rate(p_value: FloatArray) -> FloatArray:
    """Local: (share without burst) / (density of the p-values), at most 1.

    The share is twice that of p-values above 1/2 (Storey, 2002), the density the slope of the least
    concave majorant of their distribution (Grenander, 1956).
    """
    even = min(1.0, 2 * float(np.mean(p_value > 0.5)))
    values, counts = np.unique(p_value, return_counts=True)
    x = np.append(0.0, values)
    y = np.append(0.0, np.cumsum(counts) / len(p_value))
    x, y = np.append(x, 1.0), np.append(y, 1.0)
    corner = _majorant(x, y)
    slope = np.diff(y[corner]) / np.maximum(np.diff(x[corner]), 1e-12)
    part = np.clip(np.searchsorted(x[corner], p_value, side="left") - 1, 0, len(slope) - 1)
    return np.minimum(1.0, even / np.maximum(slope[part], 1e-12))


def _by_group(p_value: FloatArray, group: IntArray) -> FloatArray:
    """A rate a group; small groups have too little to show a burst and are judged together."""
    rate = np.ones(len(p_value))
    small = np.zeros(len(p_value), np.bool_)
    for index in np.unique(group):
        rows = group == index
        if rows.sum() < _MIN_GROUP:
            small |= rows
        else:
            rate[rows] = false_discovery_rate(p_value[rows])
    if small.sum() >= _MIN_GROUP:
        rate[small] = false_discovery_rate(p_value[small])
    return rate


def _majorant(x: FloatArray, y: FloatArray) -> IntArray:
    """Indices of the corners of the least concave majorant of points with increasing x."""
    corner: list[int] = []
    for i in range(len(x)):
        while len(corner) >= 2:
            a, b = corner[-2], corner[-1]
            if (y[b] - y[a]) * (x[i] - x[a]) > (y[i] - y[a]) * (x[b] - x[a]):
                break
            corner.pop()
        corner.append(i)
    return np.array(corner)


def _distances(touches: FirstTouches, pairs: IntArray, rank: IntArray) -> FloatArray:
    """(o,) seconds to the rank-th nearest other session at the same node; inf at rank 0."""
    order = np.lexsort((touches.time_s, touches.node))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return _neighbour_distance(place[pairs], rank, touches.node[order], touches.time_s[order])


@compiled
def _neighbour_distance(
    places: IntArray, ranks: IntArray, node: IntArray, time: FloatArray
) -> FloatArray:
    """Distance to the rank-th nearest touch of the same node; touches are sorted by (node, time)."""
    out = np.full(len(places), math.inf)
    for i in range(len(places)):
        here = places[i]
        before, after = here - 1, here + 1
        for _ in range(ranks[i]):
            left = right = math.inf
            if before >= 0 and node[before] == node[here]:
                left = time[here] - time[before]
            if after < len(node) and node[after] == node[here]:
                right = time[after] - time[here]
            out[i] = min(left, right)
            if left <= right:
                before -= 1
            else:
                after += 1
    return out
