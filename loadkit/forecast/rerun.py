"""The log's own requests at 1x, on replicas or from cold starts: simulated, nothing extrapolated."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np

from loadkit.analysis.weighted import WeightedHits
from loadkit.forecast.counting import count_cold_starts, rates_of
from loadkit.forecast.fleet import fleet_hits
from loadkit.forecast.interval import Capacities
from loadkit.forecast.model import Forecast
from loadkit.forecast.question import Question, curve_point, estimate, split_of
from loadkit.forecast.sample import Sample

RERUN = "rerun"
ASSUMES = "if traffic stays as in your log"
_ROUTINGS_DRAWN = 8
# What simulated routing was off in checks against one replica at its share of traffic (1.7 points).
_MODEL_ERROR = 0.017


def rerun_log(question: Question, sample: Sample) -> Forecast:
    """Run the log through the scenario's fleet, or from cold starts of the scenario's horizon.

    The half width is twice the spread between cold starts (or drawn routings) plus the router
    model's error; one pooled cache from cold has the spread only.
    """
    asked = question.scenario
    capacities = question.capacities(sample.distinct_blocks())
    runs = _runs(question, sample, capacities)
    total = reduce(add, runs)
    rates = np.stack([rates_of(run) for run in runs])
    spread = rates.std(axis=0, ddof=1) if len(runs) > 1 else np.zeros(rates.shape[1:])
    half = 2 * spread + (0 if asked.is_pooled else _MODEL_ERROR)
    wide = 100 * float(half[0, 0]) > question.target_points
    level = question.confidence
    return question.answer(
        estimate(total.split(0).rate("hit"), float(half[0, 0]), level, RERUN),
        estimate(total.organic_rate(0), float(half[1, 0]), level, RERUN),
        split=split_of(total, 0),
        curve=[
            curve_point(total, index, capacities[index], float(half[0, index]))
            for index in range(1, len(capacities))
        ],
        self_check={
            "method": RERUN,
            "runs": len(runs),
            "half_width_points": 100 * float(half[0, 0]),
        },
        needs=_NEEDS if wide else None,
        assumes=ASSUMES,
    )


_NEEDS = "runs of the same log differ by more than the half width asked for: log for longer"


def _runs(question: Question, sample: Sample, capacities: Capacities) -> list[WeightedHits]:
    fleet, stream, horizon = question.fleet, sample.stream, question.scenario.horizon_s
    if horizon is not None:
        return count_cold_starts(stream, capacities, fleet, horizon, question.seed)
    drawn = 1 if fleet.routing == "prefix-aware" else _ROUTINGS_DRAWN
    return [fleet_hits(stream, capacities, fleet, question.seed + i) for i in range(drawn)]
