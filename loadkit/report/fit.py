"""What another hit rate does to the time to first token: a line through this run's own requests.

TTFT = base + slope * uncached prompt tokens, by least squares, since the mean is what a rate moves:
the mean TTFT of requests that leave u uncached tokens on average is base + slope * u. How sure the
line is comes from leaving out one session after another (jackknife). It holds for the load that was
sent: more misses also mean longer queues, so at a lower hit rate the true mean is this or more.

Rule: no line is shown as an answer unless (1) 30 requests of 10 sessions have both figures, (2) the
middle 90% of them span 64 uncached tokens or more, (3) the interval of the slope lies above 0,
(4) the line explains half of the variance (R^2 >= 0.5). A mark outside the uncached tokens that
were seen (2nd to 98th percentile) gets no time: that would be a guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import msgspec
import numpy as np

from loadkit.core.trace import FloatArray, IntArray
from loadkit.gate.requests import Requests
from loadkit.gate.sessions import t_quantile

MIN_REQUESTS, MIN_SESSIONS, MIN_SPAN_TOKENS, MIN_EXPLAINED = 30, 10, 64, 0.5
_MAX_POINTS, _CONFIDENCE = 250, 0.95


class Mark(msgspec.Struct, frozen=True):
    """A hit rate, the uncached tokens it leaves of this run's mean prompt, and the TTFT there.

    ttft_s None: outside what was seen. low_s, high_s: the line's interval, at the ends of the
    rate's own interval where it has one.
    """

    label: str
    hit_rate: float
    uncached_tokens: float
    ttft_s: float | None
    low_s: float | None = None
    high_s: float | None = None


class Fit(msgspec.Struct, frozen=True):
    """why_not: why the line is refused, None if it holds. slope_interval: 95%, by sessions.
    explained: R^2. residual_s: 10th, 50th, 90th percentile. points: (uncached tokens, seconds,
    cause) of some requests, for the picture."""

    label: str
    n: int
    why_not: str | None
    mean_prompt_tokens: float | None = None
    base_s: float | None = None
    slope_s: float | None = None
    slope_interval: tuple[float, float] | None = None
    explained: float | None = None
    residual_s: tuple[float, float, float] | None = None
    points: tuple[tuple[float, float, str], ...] = ()
    marks: tuple[Mark, ...] = ()


class Rate(msgspec.Struct, frozen=True):
    """A hit rate to ask about."""

    label: str
    rate: float
    low: float | None = None
    high: float | None = None


class _Line:
    """Least squares over all requests, and over all but one session after another."""

    def __init__(self, x: FloatArray, y: FloatArray, session: IntArray):
        sums = np.zeros((5, int(session.max()) + 1))
        for row, values in enumerate((np.ones_like(x), x, y, x * x, x * y)):
            np.add.at(sums[row], session, values)
        sums = sums[:, sums[0] > 0]
        self.sessions = sums.shape[1]
        self.all = _solve(sums.sum(axis=1))
        self.without = _solve(sums.sum(axis=1)[:, None] - sums)

    def at(self, tokens: float) -> tuple[float, float]:
        """Mean TTFT there and the half width of its interval."""
        each = self.without[0] + self.without[1] * tokens
        return float(self.all[0] + self.all[1] * tokens), self._half(each)

    @property
    def slope(self) -> tuple[float, float]:
        return float(self.all[1]), self._half(self.without[1])

    def _half(self, each: FloatArray) -> float:
        """Infinite if a session alone carries all the difference there is."""
        if not bool(np.isfinite(each).all()):
            return float("inf")
        count = len(each)
        variance = (count - 1) / count * float(((each - each.mean()) ** 2).sum())
        return t_quantile(_CONFIDENCE, count - 1) * sqrt(variance)


def _solve(sums: FloatArray) -> FloatArray:
    """(base, slope) from n, sum x, sum y, sum x^2, sum x y; NaN where x does not differ."""
    n, x, y, xx, xy = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (n * xy - x * y) / (n * xx - x * x)
        return np.array([(y - slope * x) / n, slope])


def fit(label: str, requests: Requests, rates: Sequence[Rate]) -> Fit:
    """Fit one run's requests and read the rates off it; see the rule above."""
    number = requests.number
    uncached = number["prompt_tokens"] - number["cached_tokens"]
    rows = requests.is_ok & np.isfinite(uncached) & np.isfinite(number["ttft_s"])
    x, y, session = uncached[rows], number["ttft_s"][rows], requests.session[rows]
    if why := _too_little(x, session):
        return Fit(label, len(x), why)
    mean = float(number["prompt_tokens"][rows].mean())
    line = _Line(x, y, session)
    slope, half = line.slope
    residuals = y - (line.all[0] + slope * x)
    spread = [float(value) for value in np.quantile(residuals, [0.1, 0.5, 0.9])]
    explained = 1.0 - float((residuals**2).sum() / max(((y - y.mean()) ** 2).sum(), 1e-300))
    why_not = _why_not(slope, half, explained)
    seen = (float(np.quantile(x, 0.02)), float(np.quantile(x, 0.98)))
    causes = requests.main_cause[rows]
    return Fit(
        label=label,
        n=len(x),
        why_not=why_not,
        mean_prompt_tokens=mean,
        base_s=float(line.all[0]),
        slope_s=slope,
        slope_interval=None if np.isinf(half) else (slope - half, slope + half),
        explained=explained,
        residual_s=(spread[0], spread[1], spread[2]),
        points=tuple(
            (float(x[n]), float(y[n]), str(causes[n])) for n in _evenly(len(x), _MAX_POINTS)
        ),
        marks=() if why_not else tuple(_mark(line, mean, rate, seen) for rate in rates),
    )


def _too_little(x: FloatArray, session: IntArray) -> str | None:
    if len(x) < MIN_REQUESTS:
        return f"{len(x)} requests have both a TTFT and cached tokens, {MIN_REQUESTS} are needed"
    if (count := len(np.unique(session))) < MIN_SESSIONS:
        return f"they are of {count} sessions, {MIN_SESSIONS} are needed"
    span = float(np.subtract(*np.quantile(x, [0.95, 0.05])))
    if span < MIN_SPAN_TOKENS:
        return f"uncached tokens hardly differ: the middle 90% span {span:.0f} tokens"
    return None


def _why_not(slope: float, half: float, explained: float) -> str | None:
    if not slope - half > 0:
        return "it is not certain that more uncached tokens take longer here"
    if explained < MIN_EXPLAINED:
        share, least = f"{100 * explained:.0f}%", f"{100 * MIN_EXPLAINED:.0f}%"
        return (
            f"uncached tokens explain {share} of the variance of TTFT, less than {least}: something"
            " else, such as waiting in a queue, decides it"
        )
    return None


def _mark(line: _Line, mean: float, rate: Rate, seen: tuple[float, float]) -> Mark:
    tokens = (1 - rate.rate) * mean
    if not seen[0] <= tokens <= seen[1]:
        return Mark(rate.label, rate.rate, tokens, None)
    low_rate = rate.rate if rate.low is None else rate.low
    high_rate = rate.rate if rate.high is None else rate.high
    least, below = line.at((1 - high_rate) * mean)
    most, above = line.at((1 - low_rate) * mean)
    ttft = line.at(tokens)[0]
    return Mark(
        rate.label, rate.rate, tokens, max(0.0, ttft), max(0.0, least - below), most + above
    )


def _evenly(count: int, most: int) -> IntArray:
    chosen: IntArray = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
    return chosen
