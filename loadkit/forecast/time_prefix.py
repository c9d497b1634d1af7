"""A longer run of the same traffic: the log is the first part of a cold start, extended in time.

Inside the window the answer is counted. Beyond it three methods that err in different ways are
averaged: the rate stays as in the last third of the window; or it gains what the survival of gaps
says is found later, with a power or a lognormal-cure tail. In a cache of C blocks a gap longer than
the time in which C new blocks come in is a miss.

Nothing in a window tells whether the next hours are like it. On drifting traffic the interval held
for .38 to .85 instead of .9, and no check inside the window caught that: the label says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from loadkit.analysis.nodes import select_requests
from loadkit.analysis.weighted import WeightedHits, weighted_hits
from loadkit.core.trace import FloatArray
from loadkit.forecast.counting import arrivals
from loadkit.forecast.model import Forecast, ForecastPoint, Split
from loadkit.forecast.question import Capacity, Question, estimate
from loadkit.forecast.sample import Sample
from loadkit.forecast.survival import lookup_gaps, survival

TIME_PREFIX = "time_prefix"
ASSUMES = "if traffic stays as in your window"
METHODS = ("last_third", "power_tail", "cure_tail")
_ORIGINS = (1 / 2, 2 / 3)  # rolling origins: parts of the window that forecast the whole
_TRUSTED = 0.8  # of the window: beyond it few lookups are old enough to tell
_STEPS = 64
# Half width for every doubling of the window, since nothing inside it tells of drift: settled on the
# worlds marked `design` and `revision` so that forecasts called ok at 5 points are wrong in 2% of cases.
_PER_DOUBLING = 0.025


@dataclass(frozen=True, slots=True)
class Extension:
    """Rates over the whole horizon, (3, c): one row a method, at each capacity."""

    by_method: FloatArray
    inside: WeightedHits
    late: WeightedHits

    @property
    def rates(self) -> FloatArray:
        """(c,) the mean of the methods."""
        mean: FloatArray = self.by_method.mean(axis=0)
        return mean


def extend_window(question: Question, sample: Sample) -> Forecast:
    """Forecast a cold start of `horizon_s`, longer than the log. Ask `prefix_refusals` first."""
    asked = question.scenario
    assert asked.horizon_s is not None
    capacities = question.capacities(sample.distinct_blocks())
    found = extend(sample, asked.horizon_s, capacities, asked.ttl_s)
    half, parts = _half_width(sample, found, asked.horizon_s, capacities, question)
    wide = 100 * float(half[0]) > question.target_points
    rate, level = float(found.rates[0]), question.confidence
    split = _scaled_split(found.late, 0, rate)
    organic = found.late.organic_rate(0)
    return question.answer(
        estimate(rate, float(half[0]), level, TIME_PREFIX),
        estimate(organic, float(half[0]), level, TIME_PREFIX),
        split=split,
        curve=[
            _point(found, index, size, float(half[index]), sample.stream.block_size)
            for index, size in enumerate(capacities)
            if index
        ],
        self_check={"method": TIME_PREFIX, **parts},
        needs=_needs(half[0], question.target_points) if wide else None,
        warm_hit_rate=question.baselines.last_third,
        assumes=ASSUMES,
    )


def extend(
    sample: Sample, horizon_s: float, capacities: Sequence[Capacity], ttl_s: float | None
) -> Extension:
    """Rates over [0, horizon] by each method. The sample's window must be shorter."""
    stream, window = sample.stream, sample.window_s
    arrival = sample_arrivals(sample)
    inside = weighted_hits(stream, capacities, [ttl_s])
    late = weighted_hits(stream, capacities, [ttl_s], np.asarray(arrival >= window * 2 / 3))
    times = window + (np.arange(_STEPS) + 0.5) / _STEPS * (horizon_s - window)
    gains = _gains(sample, times, capacities, ttl_s)
    after = np.stack([late.hit_rates(), *(late.hit_rates() + gain for gain in gains)])
    after = np.clip(after, 0, 1)
    share = window / horizon_s
    return Extension(share * inside.hit_rates() + (1 - share) * after, inside, late)


def sample_arrivals(sample: Sample) -> FloatArray:
    """(n,) arrival times from the start of the window."""
    return arrivals(replace(sample.stream, event_time_s=sample.time_s))


def _gains(
    sample: Sample, times: FloatArray, capacities: Sequence[Capacity], ttl_s: float | None
) -> list[FloatArray]:
    """How much more (c,) is hit at `times` beyond the window than in its last third, by each tail.

    Only the difference is modelled, so that a cache that is full already stays as it was measured.
    """
    stream = sample.stream
    gaps = lookup_gaps(replace(stream, event_time_s=sample.time_s), 0.0)
    law = survival(gaps, _TRUSTED * sample.window_s)
    asked = stream.requests
    can_hit = asked.max_hit_tokens.sum() / max(asked.prompt_tokens.sum(), 1)
    recent = sample.window_s * (2 / 3 + (np.arange(_STEPS) + 0.5) / _STEPS / 3)
    out = []
    for tail in (law.power_tail, law.cure_tail):
        grid = np.append(np.linspace(0, sample.window_s, 4 * _STEPS)[1:], times)
        memory = [_memory_s(sample, grid, tail(grid), size) for size in capacities]
        limits = [min(seconds, np.inf if ttl_s is None else ttl_s) for seconds in memory]
        out.append(
            np.array(
                [
                    float(
                        np.mean(tail(np.minimum(recent, x))) - np.mean(tail(np.minimum(times, x)))
                    )
                    for x in limits
                ]
            )
            * can_hit
        )
    return out


def _memory_s(sample: Sample, grid: FloatArray, survives: FloatArray, size: Capacity) -> float:
    """Seconds in which `size` new blocks come in: gaps longer than that are evicted.

    New blocks come in at the rate of lookups times S; scaled to the log's own footprint at the end
    of its window, so that replies count too.
    """
    if size is None:
        return np.inf
    steps = np.diff(np.append(0.0, grid))
    grown = np.cumsum(survives * steps)
    at_window = np.interp(sample.window_s, grid, grown)
    blocks = grown / max(at_window, 1e-12) * sample.distinct_blocks()
    if size >= blocks[-1]:
        return np.inf
    return float(np.interp(size, blocks, grid))


def _half_width(
    sample: Sample,
    found: Extension,
    horizon_s: float,
    capacities: Sequence[Capacity],
    question: Question,
) -> tuple[FloatArray, dict[str, Any]]:
    """sqrt(worst rolling-origin error^2 + (range of the methods / 2)^2 + drift^2 + 1 pt^2 + (2.5 pt
    for every doubling of the window)^2)."""
    ttl = question.scenario.ttl_s
    origin = _rolling_error(sample, found, horizon_s, capacities, ttl)
    spread = (found.by_method.max(axis=0) - found.by_method.min(axis=0)) / 2
    drift = _drift(sample) * (1 - sample.window_s / horizon_s)
    unseen = _PER_DOUBLING * np.log2(horizon_s / sample.window_s)
    half = np.sqrt(origin**2 + spread**2 + drift**2 + 0.01**2 + unseen**2)
    level = NormalDist().inv_cdf(0.5 + question.confidence / 2) / NormalDist().inv_cdf(0.95)
    parts = {
        "window_s": sample.window_s,
        "half_width_points": 100 * float(level * half[0]),
        "rolling_origin_points": 100 * float(origin[0]),
        "method_range_points": 200 * float(spread[0]),
        "drift_points": 100 * drift,
        **{name: float(rate) for name, rate in zip(METHODS, found.by_method[:, 0], strict=True)},
    }
    return level * half, parts


def _rolling_error(
    sample: Sample,
    found: Extension,
    horizon_s: float,
    capacities: Sequence[Capacity],
    ttl_s: float | None,
) -> FloatArray:
    """(c,) the worst error of earlier parts of the window that forecast the whole of it.

    They look ahead no farther, in windows, than the forecast itself does.
    """
    truth = found.inside.hit_rates()
    errors = []
    for part in _ORIGINS:
        if horizon_s < sample.window_s / part and part < max(_ORIGINS):
            continue
        guess = extend(sample_prefix(sample, part), sample.window_s, capacities, ttl_s).rates
        errors.append(np.abs(guess - truth))
    worst: FloatArray = np.max(errors, axis=0)
    return worst


def sample_prefix(sample: Sample, part: float) -> Sample:
    """The first part of the window as a sample of its own (sessions are not cut out)."""
    early = sample_arrivals(sample) <= part * sample.window_s
    kept = early[sample.stream.event_request]
    return replace(
        sample,
        stream=select_requests(sample.stream, np.asarray(early)),
        time_s=sample.time_s[kept],
        window_s=part * sample.window_s,
    )


def _drift(sample: Sample) -> float:
    """Change between the halves of the window of the share found within a third of it."""
    window = sample.window_s
    gaps = lookup_gaps(replace(sample.stream, event_time_s=sample.time_s), 0.0)
    at = np.array([window / 3])
    first, second = (
        float(survival(gaps.between(start, end), window / 2).at(at)[0])
        for start, end in ((0, window / 2), (window / 2, 2 * window))
    )
    return first - second


def _scaled_split(late: WeightedHits, index: int, rate: float) -> Split:
    """The causes of the last third of the window, scaled to the forecast rate."""
    total = late.split(index)
    hit = total.rate("hit")
    scale = rate / hit if hit else 0.0
    parts = {
        name: (total.rate(name) or 0.0) * scale
        for name in ("replay_same_session", "replay_cross_session", "continuation", "shared")
    }
    return Split(**parts, miss=max(0.0, 1 - sum(parts.values())))


def _point(
    found: Extension, index: int, size: Capacity, half: float, block_size: int
) -> ForecastPoint:
    rate = float(found.rates[index])
    split = _scaled_split(found.late, index, rate)
    return ForecastPoint(
        capacity_blocks=size,
        capacity_tokens=None if size is None else size * block_size,
        hit_rate=rate,
        replay_same_session=split.replay_same_session,
        replay_cross_session=split.replay_cross_session,
        continuation=split.continuation,
        shared=split.shared,
        miss_compulsory=None,
        miss_capacity=None,
        block_hit_rate=None,
        low=max(0.0, rate - half),
        high=min(1.0, rate + half),
    )


def _needs(half: float, target: float) -> str:
    return (
        f"the interval is ±{100 * half:.1f} points wide, asked for were ±{target:g}: log a longer"
        " part of the period that is asked about"
    )
