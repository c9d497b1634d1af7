"""The figures that are compared: hit rates, each with the interval of another draw of sessions."""

from __future__ import annotations

from math import sqrt

import numpy as np

from loadkit.core.spread import of_difference, spread_of
from loadkit.gate.blockers import is_large_enough
from loadkit.gate.inputs import Expected, Measured
from loadkit.gate.requests import Requests
from loadkit.gate.sessions import Interval, ratio, t_quantile
from loadkit.gate.verdict import Comparison
from loadkit.thresholds import Thresholds


def compare(
    run: Measured, expected: Expected, limits: Thresholds, requests: Requests | None = None
) -> Comparison:
    """None where a figure is not known. Intervals are counted from `requests`; without them the
    half width that run.json states is used, and the organic rate has none."""
    rate, split = expected.hit_rate, run.split
    known = split.hit_rate is not None
    hit, organic = hit_rate(requests, limits), organic_rate(requests, limits)
    half = hit.half_width if hit else split.hit_rate_half_width
    replayed = replay_rate(requests, limits)
    other_draw = _other_draw(run, expected)
    return Comparison(
        measured=split.hit_rate,
        expected_low=rate.estimate if rate.low is None else rate.low,
        expected_high=rate.estimate if rate.high is None else rate.high,
        allowance=(
            _allowance(
                run, _apart(requests, expected, limits) or (half or 0.0) * other_draw, limits
            )
            if known
            else None
        ),
        replay_allowance=_replay_allowance(run, replayed, other_draw, limits),
        measured_replay=split.replay_rate if known else None,
        expected_replay=expected.split.replay_rate,
        interval=_around(split.hit_rate, half),
        half_width=half if known else None,
        sessions=split.sessions if known else None,
        measured_organic=split.organic_hit_rate if organic is None else organic.value,
        organic_interval=None if organic is None else organic.within(0, 1),
        expected_organic=expected.organic_hit_rate.estimate,
    )


def hit_rate(requests: Requests | None, limits: Thresholds) -> Interval | None:
    """Hit tokens / prompt tokens of the answered requests with a split; None without any."""
    if requests is None:
        return None
    return _ratio(requests, requests.hit, requests.is_split, limits)


def replay_rate(requests: Requests | None, limits: Thresholds) -> Interval | None:
    """Hit tokens of replays / prompt tokens, over the requests of the hit rate."""
    if requests is None:
        return None
    return _ratio(requests, requests.hit - requests.genuine, requests.is_split, limits)


def organic_rate(requests: Requests | None, limits: Thresholds) -> Interval | None:
    """Genuine hit tokens / prompt tokens of those whose prompt was new when it was sent."""
    if requests is None:
        return None
    return _ratio(requests, requests.genuine, requests.is_organic, limits)


def _ratio(
    requests: Requests, values: np.ndarray, rows: np.ndarray, limits: Thresholds
) -> Interval | None:
    """Only sessions with such a request count: one without any says nothing about the rate."""
    part = requests.by_session(values, rows)
    whole = requests.by_session(requests.number["prompt_tokens"], rows)
    return ratio(part[whole > 0], whole[whole > 0], limits.confidence)


def _other_draw(run: Measured, expected: Expected) -> float:
    """How much wider than the run's own interval its difference to the forecast's rate is. A rate
    that was counted in a log has no interval, but the log is a draw of sessions too: sqrt(1 + n/m)
    for n sessions in the run and m in the log. An extrapolated rate brings its own interval."""
    low, high = expected.hit_rate.low, expected.hit_rate.high
    if low != high or not expected.log.sessions:
        return 1.0
    return sqrt(1 + run.split.sessions / expected.log.sessions)


def _apart(requests: Requests | None, expected: Expected, limits: Thresholds) -> float | None:
    """Half width of the difference to a rate that was counted in a log, by the spread of both: a run
    that missed the heavy sessions has a low rate and a small spread, the log still has its own. None
    where one of them is not known."""
    theirs = expected.spread
    if requests is None or theirs is None:
        return None
    rows = requests.is_split
    ours = spread_of(
        requests.by_session(requests.hit, rows),
        requests.by_session(requests.number["prompt_tokens"], rows),
    )
    if ours is None:
        return None
    both = of_difference(ours, theirs)
    return t_quantile(limits.confidence, both.freedom) * both.error


def _allowance(run: Measured, half_width: float, limits: Thresholds) -> float | None:
    return max(half_width, limits.allowance) if is_large_enough(run, limits) else None


def _replay_allowance(
    run: Measured, replayed: Interval | None, other_draw: float, limits: Thresholds
) -> float | None:
    """Never more than half of the least sure rate that passes: a few heavy replays spread so widely
    that chance would excuse 20 points of them."""
    half = (replayed.half_width if replayed else None) or 0.0
    found = _allowance(run, half * other_draw, limits)
    return None if found is None else min(found, max(limits.allowance, limits.max_half_width / 2))


def _around(rate: float | None, half: float | None) -> tuple[float, float] | None:
    if rate is None or half is None:
        return None
    return max(0.0, rate - half), min(1.0, rate + half)
