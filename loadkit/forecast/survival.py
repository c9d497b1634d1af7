"""How long ago was a block last used? Survival of backward gaps, from a log that starts cold.

A lookup at time t finds its block used a seconds before, or does not find it among the t seconds
of the log: then the gap is censored at t. Kaplan and Meier's estimate turns both into S(x), the share
of lookups whose last use is more than x seconds back, for all x up to the window. Beyond the window
two tails stand for what is unknown: one where everything comes back some day (a power law), one where
most that ever comes back has (lognormal, with a cured share).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from loadkit.analysis.nodes import NodeStream, times_of
from loadkit.core.jit import compiled
from loadkit.core.trace import BoolArray, FloatArray, IntArray

_GRID = 24
_CURED_SHARES = 40


@dataclass(frozen=True, slots=True)
class Gaps:
    """Lookups of nodes: seconds back to the last use (or to the start), whether found, blocks."""

    gap_s: FloatArray
    found: BoolArray
    blocks: IntArray
    at_s: FloatArray  # when the lookup happened, from the start of the window

    def between(self, start_s: float, end_s: float) -> Gaps:
        """Lookups in [start, end); uses before `start` still count, as they warmed the cache."""
        rows = (self.at_s >= start_s) & (self.at_s < end_s)
        return Gaps(self.gap_s[rows], self.found[rows], self.blocks[rows], self.at_s[rows])


@dataclass(frozen=True, slots=True)
class Survival:
    """S(x) as steps on sorted gaps, and its tail beyond the last one that can be trusted."""

    gap_s: FloatArray
    share: FloatArray
    trusted_s: float  # beyond it too few lookups are old enough

    def at(self, x: FloatArray) -> FloatArray:
        """S at x inside the log; constant beyond its last step."""
        steps = np.append(1.0, self.share)
        found: FloatArray = steps[np.searchsorted(self.gap_s, x, side="right")]
        return found

    def power_tail(self, x: FloatArray) -> FloatArray:
        """S beyond the trusted part as c x^-a, a from its slope over the last eighth to the end."""
        grid = np.geomspace(self.trusted_s / 8, self.trusted_s, _GRID)
        heights = np.maximum(self.at(grid), 1e-9)
        slope = min(0.0, float(np.polyfit(np.log(grid), np.log(heights), 1)[0]))
        tail = heights[-1] * (np.maximum(x, self.trusted_s) / self.trusted_s) ** slope
        return np.where(x <= self.trusted_s, self.at(x), tail)

    def cure_tail(self, x: FloatArray) -> FloatArray:
        """S beyond the trusted part as c + (1 - c) times a lognormal's survival, joined on there."""
        cured, mean, sigma = self._fit_cure()
        z = (np.log(np.maximum(x, 1e-9)) - mean) / sigma
        model = cured + (1 - cured) * _upper_tail(z)
        at_join = cured + (1 - cured) * _upper_tail(
            np.array([(np.log(self.trusted_s) - mean) / sigma])
        )
        joined = model * float(self.at(np.array([self.trusted_s]))[0] / max(at_join[0], 1e-9))
        return np.where(x <= self.trusted_s, self.at(x), joined)

    def _fit_cure(self) -> tuple[float, float, float]:
        """(c, mean, sigma) of log gaps with least squared error of S on a grid."""
        grid = np.geomspace(self.trusted_s / 200, self.trusted_s, _GRID)
        heights, logs = self.at(grid), np.log(grid)
        best = (np.inf, 0.0, float(logs[-1]), 1.0)
        for cured in np.linspace(0, 0.999, _CURED_SHARES) * float(heights.min()):
            still = np.clip((heights - cured) / (1 - cured), 1e-6, 1 - 1e-6)
            z = np.array([NormalDist().inv_cdf(float(1 - s)) for s in still])
            slope, offset = np.polyfit(logs, z, 1)
            if slope <= 1e-3:
                continue
            model = cured + (1 - cured) * _upper_tail(slope * logs + offset)
            error = float(np.sum((model - heights) ** 2))
            best = min(best, (error, float(cured), float(-offset / slope), float(1 / slope)))
        return best[1:]


def lookup_gaps(stream: NodeStream, start_s: float) -> Gaps:
    """The gaps of every block that a prompt asks for and that the engine's rule lets hit."""
    gap, found, blocks, at = _gaps(
        stream.event_ptr,
        stream.nodes,
        stream.weight,
        stream.event_request,
        stream.is_arrival,
        times_of(stream) - start_s,
        stream.requests.max_hit_blocks,
        np.full(stream.num_nodes, -1.0),
    )
    asked = blocks > 0
    return Gaps(gap[asked], found[asked], blocks[asked], at[asked])


def survival(gaps: Gaps, trusted_s: float) -> Survival:
    """Kaplan and Meier's estimate, weighted by blocks."""
    order = np.argsort(gaps.gap_s, kind="stable")
    blocks = gaps.blocks[order].astype(np.float64)
    values, first = np.unique(gaps.gap_s[order], return_index=True)
    if not len(values):
        return Survival(np.zeros(0), np.zeros(0), trusted_s)
    died = np.add.reduceat(np.where(gaps.found[order], blocks, 0.0), first)
    at_risk = np.cumsum(blocks[::-1])[::-1][first]
    share = np.cumprod(1 - died / at_risk).astype(np.float64)
    return Survival(values, share, trusted_s)


def _upper_tail(z: FloatArray) -> FloatArray:
    normal = NormalDist()
    return np.array([1 - normal.cdf(float(value)) for value in z])


@compiled
def _gaps(
    ptr: IntArray,
    nodes: IntArray,
    weight: IntArray,
    event_request: IntArray,
    is_arrival: BoolArray,
    time: FloatArray,
    max_hit: IntArray,
    touched_at: FloatArray,
) -> tuple[FloatArray, BoolArray, IntArray, FloatArray]:
    gap, at = np.zeros(len(nodes)), np.zeros(len(nodes))
    found, blocks = np.zeros(len(nodes), np.bool_), np.zeros(len(nodes), np.int64)
    for event in range(len(event_request)):
        now = time[event]
        depth = 0
        for touch in range(ptr[event], ptr[event + 1]):
            node = nodes[touch]
            if is_arrival[event]:
                found[touch] = touched_at[node] >= 0
                gap[touch] = now - touched_at[node] if found[touch] else now
                allowed = max_hit[event_request[event]] - depth
                blocks[touch] = max(0, min(weight[node], allowed))
                at[touch] = now
            depth += weight[node]
        for touch in range(ptr[event], ptr[event + 1]):
            touched_at[nodes[touch]] = now
    return gap, found, blocks, at
