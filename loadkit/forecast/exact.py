"""The log is the production asked about: its rate is counted, nothing is estimated.

At the log's own traffic on one cache the pass counts what an LRU cache of that size would have
hit (for a log with latencies, what the engine's own pool would), so the answer has no sampling error
and carries no interval. That the next hour may differ from this one is not part of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from loadkit.analysis.curve import CurvePoint, hit_curve
from loadkit.analysis.per_request import PerRequest, per_request_of
from loadkit.analysis.reuse import reuse_of
from loadkit.analysis.simulate.engine_pools import Placement, place, with_pools
from loadkit.analysis.weighted import weighted_hits
from loadkit.core.spread import spread_of
from loadkit.forecast.model import Estimate, Forecast
from loadkit.forecast.question import Question, curve_point, split_from

EXACT = "exact"
ASSUMES = "if traffic stays as in your log"
ASSUMES_ORDER = (
    "if requests come one after another in the order of your log, which has no timestamps"
)


def count_exactly(question: Question) -> Forecast:
    """The forecast at 1x, one pooled cache, the log's own length; with or without expiry."""
    scenario = question.scenario
    hits = weighted_hits(question.stream, [scenario.capacity_blocks], [scenario.ttl_s])
    total, organic = hits.split(0), hits.organic_rate(0)
    placement, served = _from_pool(question)
    if served is not None:
        total, organic = served.total(), served.organic_hit_rate()
    return question.answer(
        _with_spread(exactly(total.rate("hit")), question, served),
        exactly(organic),
        split=split_from(total),
        curve=_curve(question),
        self_check={"method": EXACT},
        needs=None,
        warm_hit_rate=question.baselines.last_third,
        assumes=_assumes(question),
        placement=placement,
    )


def _from_pool(question: Question) -> tuple[Placement | None, PerRequest | None]:
    """What the engine's own pool hits, where the log has latencies."""
    asked = question.scenario
    if asked.capacity_blocks is None or asked.ttl_s is not None:
        return None, None
    placement, served = _place(question, [asked.capacity_blocks])
    return placement, served[0] if served else None


def _place(
    question: Question, capacities: Sequence[int]
) -> tuple[Placement | None, list[PerRequest]]:
    engine = question.scenario.engine
    return place(
        reuse_of(question.trace, engine),
        engine,
        capacities,
        question.latency_s,
        question.prefill_tokens_per_s,
    )


def _assumes(question: Question) -> str:
    """In a corpus without time a session's turns often stand together, which no server would see."""
    timed = question.stream.event_time_s is not None
    return ASSUMES if timed or question.scenario.capacity_blocks is None else ASSUMES_ORDER


def _with_spread(rate: Estimate, question: Question, served: PerRequest | None) -> Estimate:
    """How far another draw of the log's sessions would move the rate; not told with expiry."""
    asked, trace = question.scenario, question.trace
    if rate.estimate is None or asked.ttl_s is not None:
        return rate
    if served is None:
        served = per_request_of(reuse_of(trace, asked.engine), asked.capacity_blocks)
    hits, prompts = (
        np.bincount(trace.session, tokens, minlength=trace.num_sessions).astype(np.float64)
        for tokens in (served.resident_tokens, served.prompt_tokens)
    )
    found = spread_of(hits, prompts)
    if found is None:
        return rate
    return msgspec.structs.replace(rate, error=found.error, freedom=found.freedom)


def exactly(rate: float | None) -> Estimate:
    """A counted rate: no interval was estimated, so its ends are the rate itself."""
    return Estimate(rate, rate, rate, None, EXACT if rate is not None else None)


def _curve(question: Question) -> tuple[CurvePoint, ...]:
    """Empty, unless capacities were asked for, for a log without timestamps."""
    if question.stream.event_time_s is None and question.curve_blocks is None:
        return ()
    curve = hit_curve(reuse_of(question.trace, question.scenario.engine))
    asked, ttl = question.curve_blocks, question.scenario.ttl_s
    sizes = curve.default_capacities() if asked is None else list(asked)
    if ttl is None:
        points = curve.points(sizes)
        finite = [size for size in asked or () if size is not None]
        return tuple(with_pools(points, finite, _place(question, finite)[1]) if finite else points)
    hits = weighted_hits(question.stream, sizes, [ttl])
    return tuple(curve_point(hits, index, size) for index, size in enumerate(sizes))
