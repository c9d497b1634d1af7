"""How far chance moves a figure: jackknife over sessions, the units that are drawn independently.

Requests of one session are alike, so a session is left out as a whole. Sessions are never drawn
with replacement: a session that is there twice is a replay, which would change what is measured.
The interval is for another draw of such sessions at the cache states of this run; it does not say
how production differs, nor what another day on the same machine would do.
"""

from __future__ import annotations

from math import isfinite, sqrt
from statistics import NormalDist

import msgspec
import numpy as np

from loadkit.core.trace import FloatArray


class Interval(msgspec.Struct, frozen=True):
    """A figure with its interval; low and high None: fewer than two sessions to judge by."""

    value: float
    low: float | None
    high: float | None
    sessions: int

    @property
    def half_width(self) -> float | None:
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def within(self, least: float, most: float) -> tuple[float, float] | None:
        """Both ends cut to what is possible; None if there are none."""
        if self.low is None or self.high is None:
            return None
        return max(least, self.low), min(most, self.high)


def t_quantile(confidence: float, freedom: float) -> float:
    """Two-sided quantile of Student's t (Cornish-Fisher, Abramowitz and Stegun 26.7.5); within
    0.1% from 5 degrees of freedom on."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / float(freedom) ** (power + 1) for power, term in enumerate(terms))


def ratio(part: FloatArray, whole: FloatArray, confidence: float) -> Interval | None:
    """sum(part) / sum(whole) over sessions (arrays of shape (sessions,)); None if nothing is whole."""
    return _judged([(part, whole)], confidence)


def difference(
    new: tuple[FloatArray, FloatArray], old: tuple[FloatArray, FloatArray], confidence: float
) -> Interval | None:
    """ratio(new) - ratio(old) of the same sessions in the same order: leaving a session out leaves
    it out on both sides, so what both have in common cancels."""
    return _judged([new, old], confidence)


def apart(new: Interval, old: Interval, confidence: float) -> Interval:
    """The difference of two figures from different sessions: their variances add."""
    value, freedom = new.value - old.value, max(1, min(new.sessions, old.sessions) - 1)
    if new.half_width is None or old.half_width is None:
        return Interval(value, None, None, freedom + 1)
    half = sqrt(new.half_width**2 + old.half_width**2)
    return Interval(value, value - half, value + half, freedom + 1)


def _judged(sides: list[tuple[FloatArray, FloatArray]], confidence: float) -> Interval | None:
    """Delete-a-group jackknife with the sessions as groups (Wolter, Introduction to Variance
    Estimation, 4.2): variance = (S - 1) / S * sum (figure without one - their mean)^2."""
    value = _figure([(part.sum(), whole.sum()) for part, whole in sides])
    if value is None:
        return None
    without = [_leaving_one_out(part, whole) for part, whole in sides]
    figures = without[0] - (without[1] if len(without) > 1 else 0.0)
    known = figures[np.isfinite(figures)]
    count = len(known)
    if count < 2:
        return Interval(value, None, None, len(figures))
    variance = (count - 1) / count * float(((known - known.mean()) ** 2).sum())
    half = t_quantile(confidence, count - 1) * sqrt(variance)
    return Interval(value, value - half, value + half, count)


def _figure(sums: list[tuple[float, float]]) -> float | None:
    if any(not whole or not isfinite(part / whole) for part, whole in sums):
        return None
    first, *rest = (float(part / whole) for part, whole in sums)
    return first - sum(rest)


def _leaving_one_out(part: FloatArray, whole: FloatArray) -> FloatArray:
    left = whole.sum() - whole
    with np.errstate(divide="ignore", invalid="ignore"):
        kept: FloatArray = np.where(left > 0, (part.sum() - part) / left, np.nan)
    return kept


def wilson(share: float, total: float, confidence: float) -> tuple[float, float]:
    """Score interval of a share of `total` (Wilson 1927); holds at 0 and at 1 too."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    scale = 1 + z * z / total
    middle = (share + z * z / (2 * total)) / scale
    half = z / scale * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, middle - half), min(1.0, middle + half)
