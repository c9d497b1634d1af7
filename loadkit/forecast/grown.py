"""The forecast by superposition: traffic R times the log's, on any fleet, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add

from loadkit.analysis.per_request import PerRequest
from loadkit.analysis.simulate.engine_pools import place_streams
from loadkit.core.trace import FloatArray
from loadkit.forecast.counting import count_fleet, rates_of, warm_rate
from loadkit.forecast.growth import Growth
from loadkit.forecast.interval import (
    INFERRED_PENALTY,
    MENDED_PENALTY,
    TENANT_PENALTY,
    Capacities,
    Uncertainty,
    sessions_needed,
    uncertainty,
)
from loadkit.forecast.model import Estimate, Forecast
from loadkit.forecast.question import Question, curve_point, estimate, method_of, split_from
from loadkit.forecast.sample import Sample
from loadkit.forecast.self_check import self_check
from loadkit.forecast.superpose import Template, template_of

ASSUMES = "if production is more of the traffic in your log, over a period as long"
ASSUMES_LESS = "if production is a random part of the sessions in your log"
ASSUMES_SAMPLED = {
    "sessions": ASSUMES,
    "requests": "if your log is a random share of production's requests, each drawn by itself, over a"
    " period as long",
    "tenants": "if production has more tenants like those in your log, over a period as long",
}


def grow_traffic(question: Question, sample: Sample) -> Forecast:
    """Forecast at the scenario's traffic, replicas and horizon. Ask `refusals` first."""
    asked, template = question.scenario, template_of(sample)
    growth = Growth(question.fleet, asked.horizon_s)
    builds = growth.builds(template, question.times, question.seed)
    capacities = question.capacities(builds[0].distinct_blocks)
    hits = growth.count(builds, capacities, question.seed)
    ratio = sample.distinct_blocks() / max(builds[0].distinct_blocks, 1)
    error = _uncertainty(question, growth, template, capacities, ratio)
    half = float(error.half[0, 0])
    wide = 100 * half > question.target_points
    warm = warm_rate(builds[0].stream, asked.capacity_blocks, asked.ttl_s)
    total, organic = hits.split(0), hits.organic_rate(0)
    placement = None
    if question.latency_s is not None and asked.capacity_blocks is not None:
        placement, found = place_streams(
            [build.stream for build in builds],
            asked.engine,
            asked.capacity_blocks,
            question.latency_s,
            question.prefill_tokens_per_s,
        )
        total, organic = reduce(add, (each.total() for each in found)), organic_rate_of(found)
    return question.answer(
        _estimate(question, total.rate("hit"), half),
        _estimate(question, organic, float(error.half[1, 0])),
        split=split_from(total),
        curve=[
            curve_point(hits, index, capacities[index], float(error.half[0, index]))
            for index in range(1, len(capacities))
        ],
        self_check=self_check(question, template, growth, error, builds[0].distinct_blocks),
        needs=_needs(question, sample, half) if wide else None,
        warm_hit_rate=warm if asked.is_pooled else None,
        assumes=_assumes(question),
        placement=placement,
    )


def organic_rate_of(parts: Sequence[PerRequest]) -> float | None:
    """Of all of them together; None if every request is a replay."""
    new = [part.replay == 0 for part in parts]
    tokens = sum(int(part.prompt_tokens[rows].sum()) for part, rows in zip(parts, new, strict=True))
    hit = sum(int(part.resident_tokens[rows].sum()) for part, rows in zip(parts, new, strict=True))
    return hit / tokens if tokens else None


def _uncertainty(
    question: Question,
    growth: Growth,
    template: Template,
    capacities: Capacities,
    footprint_ratio: float,
) -> Uncertainty:
    pooled = replace(growth, fleet=replace(growth.fleet, routing="pooled"))

    def counted(whole: Template, sizes: Capacities) -> FloatArray:
        stream = whole.sample.stream
        return rates_of(count_fleet(stream, sizes, pooled.fleet, growth.horizon_s, question.seed))

    return uncertainty(
        template,
        question.times,
        capacities,
        footprint_ratio,
        growth.rates,
        (pooled.rates, counted),
        confidence=question.confidence,
        penalty=_penalty(question),
        seed=question.seed,
    )


def _estimate(question: Question, rate: float | None, half: float) -> Estimate:
    return estimate(rate, half, question.confidence, method_of(question))


def _assumes(question: Question) -> str:
    return ASSUMES_LESS if question.scenario.traffic < 1 else ASSUMES_SAMPLED[question.sampled]


def _penalty(question: Question) -> float:
    if question.sampled == "requests":
        return MENDED_PENALTY
    if question.sampled == "tenants":
        return TENANT_PENALTY
    return INFERRED_PENALTY if question.trace.sessions_inferred else 0.0


def _needs(question: Question, sample: Sample, half: float) -> str:
    """What would make the interval as narrow as asked for. The penalty does not shrink with more
    sessions: session ids take it off, or the rest must be narrower by so much."""
    penalty, target = 100 * _penalty(question), question.target_points
    width = f"the interval is ±{100 * half:.1f} points wide, asked for were ±{target:g}"
    ids, by_chance, room = "", 100 * half - penalty, target - penalty
    unit = "tenants" if question.sampled == "tenants" else "sessions"
    if question.trace.sessions_inferred and unit == "sessions":
        ids, room = f"session ids in the log would take {penalty:.0f} of the points off", target
        if by_chance <= target:
            return f"{width}: {ids}"
        ids = f", and {ids}"
    if room <= 0:
        return f"{width}: however many {unit} the log has, it is never below ±{penalty:g}"
    needed = sessions_needed(sample.num_sessions, by_chance, room)
    return (
        f"{width}: about {_rounded(needed):,} {unit} are needed (an order of magnitude), the log"
        f" has {sample.num_sessions:,}{ids}"
    )


def _rounded(number: int) -> int:
    """Two digits: more would promise too much."""
    scale: int = 10 ** max(0, len(str(number)) - 2)
    return -(-number // scale) * scale
