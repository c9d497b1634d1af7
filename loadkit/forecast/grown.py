"""The forecast by superposition: traffic R times the log's, on any fleet, with its interval."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np

from loadkit.analysis.weighted import WeightedHits
from loadkit.core.trace import FloatArray
from loadkit.forecast.counting import count_fleet, rates_of, warm_rate
from loadkit.forecast.fleet import Fleet
from loadkit.forecast.interval import (
    INFERRED_PENALTY,
    Capacities,
    Uncertainty,
    sessions_needed,
    uncertainty,
)
from loadkit.forecast.model import Estimate, Forecast
from loadkit.forecast.question import Question, curve_point, estimate, split_of
from loadkit.forecast.sample import Sample
from loadkit.forecast.self_check import self_check
from loadkit.forecast.superpose import Production, Template, superpose, template_of
from loadkit.forecast.times import Jitter

ASSUMES = "if production is more of the traffic in your log, over a period as long"
ASSUMES_LESS = "if production is a random part of the sessions in your log"
THINNINGS = 8  # less traffic than the log's: all of several random parts of it together


@dataclass(frozen=True, slots=True)
class Growth:
    """How a template is grown and counted: the question without its capacities."""

    fleet: Fleet
    horizon_s: float | None = None
    alone: str = "estimate"
    jitter: Jitter = "neighbour"

    def rates(
        self, template: Template, traffic: float, capacities: Capacities, seed: int
    ) -> FloatArray:
        """(2, c) hit rate and organic hit rate at `traffic` times the template's."""
        return rates_of(self.count(self.builds(template, traffic, seed), capacities, seed))

    def builds(self, template: Template, traffic: float, seed: int) -> list[Production]:
        """One synthetic production; several thinnings of the log if production has less traffic."""
        return [
            superpose(
                template,
                traffic,
                np.random.default_rng([seed, index]),
                alone=self.alone,
                jitter=self.jitter,
            )
            for index in range(THINNINGS if traffic < 1 else 1)
        ]

    def count(self, builds: list[Production], capacities: Capacities, seed: int) -> WeightedHits:
        """Hits of all builds together."""
        return reduce(
            add,
            (count_fleet(b.stream, capacities, self.fleet, self.horizon_s, seed) for b in builds),
        )


def grow_traffic(question: Question, sample: Sample) -> Forecast:
    """Forecast at the scenario's traffic, replicas and horizon. Ask `refusals` first."""
    asked, template = question.scenario, template_of(sample)
    growth = Growth(question.fleet, asked.horizon_s)
    builds = growth.builds(template, asked.traffic, question.seed)
    capacities = question.capacities(builds[0].distinct_blocks)
    hits = growth.count(builds, capacities, question.seed)
    ratio = sample.distinct_blocks() / max(builds[0].distinct_blocks, 1)
    error = _uncertainty(question, growth, template, capacities, ratio)
    half = float(error.half[0, 0])
    wide = 100 * half > question.target_points
    warm = warm_rate(builds[0].stream, asked.capacity_blocks, asked.ttl_s)
    return Forecast(
        scenario=asked,
        log=question.log,
        hit_rate=_estimate(question, hits.split(0).rate("hit"), half),
        split=split_of(hits, 0),
        organic_hit_rate=_estimate(question, hits.organic_rate(0), float(error.half[1, 0])),
        curve=tuple(
            curve_point(hits, index, capacities[index], float(error.half[0, index]))
            for index in range(1, len(capacities))
        ),
        self_check=self_check(question, template, growth, error, builds[0].distinct_blocks),
        baselines=question.baselines,
        status="inconclusive" if wide else "ok",
        needs=_needs(question, sample, half) if wide else None,
        warnings=question.trace.warnings,
        warm_hit_rate=warm if asked.is_pooled else None,
        assumes=ASSUMES if asked.traffic >= 1 else ASSUMES_LESS,
    )


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
        question.scenario.traffic,
        capacities,
        footprint_ratio,
        growth.rates,
        (pooled.rates, counted),
        confidence=question.confidence,
        sessions_inferred=question.trace.sessions_inferred,
        seed=question.seed,
    )


def _estimate(question: Question, rate: float | None, half: float) -> Estimate:
    method = "superposition" if question.scenario.traffic >= 1 else "thinning"
    return estimate(rate, half, question.confidence, method)


def _needs(question: Question, sample: Sample, half: float) -> str:
    target = question.target_points
    ids = ""
    if question.trace.sessions_inferred:
        half_by_chance = half - INFERRED_PENALTY
        if 100 * half_by_chance <= target:
            return f"the interval is ±{100 * half:.1f} points wide: {_SESSION_IDS}"
        half, ids = half_by_chance, f", and {_SESSION_IDS}"
    needed = sessions_needed(sample.num_sessions, 100 * half, target)
    return (
        f"the interval is ±{100 * half:.1f} points wide, asked for were ±{target:g}: about"
        f" {_rounded(needed):,} sessions are needed (an order of magnitude), the log has"
        f" {sample.num_sessions:,}{ids}"
    )


_SESSION_IDS = (
    f"session ids in the log would take {100 * INFERRED_PENALTY:.0f} points off the half width"
)


def _rounded(number: int) -> int:
    """Two digits: more would promise too much."""
    scale: int = 10 ** max(0, len(str(number)) - 2)
    return -(-number // scale) * scale
