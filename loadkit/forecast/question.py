"""What is asked of a log, checked and prepared once for every way to answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadkit.analysis.curve import CurvePoint, log_spaced, rates_of_point
from loadkit.analysis.engines import check_engine
from loadkit.analysis.nodes import NodeStream
from loadkit.analysis.simulate.engine_pools import ON_ARRIVAL, POOLS, Placement
from loadkit.analysis.weighted import WeightedHits
from loadkit.core.errors import InputError
from loadkit.core.split import Split as TokenSplit
from loadkit.core.trace import Trace
from loadkit.forecast.fleet import ROUTINGS, Fleet
from loadkit.forecast.model import (
    Baselines,
    Estimate,
    Forecast,
    ForecastPoint,
    LogFacts,
    Scenario,
    Split,
)

Capacity = int | None
# What the log is a random share of. requests: each drawn by itself, so that sessions are torn;
# tenants: all sessions of some tenants.
SAMPLED = ("sessions", "requests", "tenants")
_CURVE_POINTS = 16


@dataclass(frozen=True, slots=True)
class Question:
    """target_points: widest half interval, in points, that still counts as an answer.
    curve_blocks: capacities of the curve, None for log-spaced ones. trace is what is forecast from:
    the log, or what was made of it; `times` is production's traffic as a multiple of the trace's,
    and differs from the scenario's where that is not the log. sampled: what the log is a random
    share of, see SAMPLED. latency_s, prefill_tokens_per_s: see `simulate.pools.log_times`.
    """

    trace: Trace
    stream: NodeStream
    scenario: Scenario
    log: LogFacts
    baselines: Baselines
    confidence: float
    target_points: float
    seed: int
    times: float
    curve_blocks: Sequence[Capacity] | None = None
    sampled: str = "sessions"
    latency_s: float | None = None
    prefill_tokens_per_s: float | None = None

    def answer(
        self,
        hit_rate: Estimate,
        organic_hit_rate: Estimate,
        *,
        needs: str | None,
        assumes: str | None,
        split: Split | None = None,
        curve: Sequence[CurvePoint] = (),
        self_check: dict[str, Any] | None = None,
        warm_hit_rate: float | None = None,
        placement: Placement | None = None,
    ) -> Forecast:
        """The forecast that says this. needs: what is missing, None for one to be relied on. placement:
        how the cache was filled, on arrival unless given."""
        return Forecast(
            scenario=self.scenario,
            log=self.log,
            hit_rate=hit_rate,
            split=split or Split(),
            organic_hit_rate=organic_hit_rate,
            curve=tuple(curve),
            self_check=self_check or {},
            baselines=self.baselines,
            status="ok" if needs is None else "inconclusive",
            needs=needs,
            warnings=self.trace.warnings,
            warm_hit_rate=warm_hit_rate,
            assumes=assumes,
            placement=placement or self._on_arrival(hit_rate),
        )

    def _on_arrival(self, hit_rate: Estimate) -> Placement | None:
        """Nothing to say of an infinite cache, of a rule without a pool, and where there is no rate."""
        asked = self.scenario
        if hit_rate.estimate is None or asked.capacity_blocks is None or asked.engine not in POOLS:
            return None
        if asked.ttl_s is not None:
            reason = "engines' pools know no expiry"
        elif not asked.is_pooled or asked.horizon_s is not None:
            reason = "pools are simulated for one cache and the log's own length"
        else:
            reason = "give --latency, how long requests would run then is not in the log"
        return Placement("arrival", f"{ON_ARRIVAL}: {reason}")

    @property
    def fleet(self) -> Fleet:
        asked = self.scenario
        return Fleet(asked.replicas, asked.routing, asked.ttl_s, asked.capacity_blocks)

    def capacities(self, footprint: int) -> list[Capacity]:
        """The asked capacity first, then a curve up to the footprint in blocks.

        Without timestamps an infinite cache is all that can be asked about.
        """
        asked = self.scenario.capacity_blocks
        if self.curve_blocks is not None:
            return [asked, *self.curve_blocks]
        if self.stream.event_time_s is None:
            return [asked]
        return [asked, *log_spaced(max(1, footprint), _CURVE_POINTS)]


def method_of(question: Question) -> str:
    """The label of a grown forecast."""
    if question.sampled == "requests":
        return "torn_requests"
    if question.scenario.traffic < 1:
        return "thinning"
    return "tenants" if question.sampled == "tenants" else "superposition"


def check_scenario(scenario: Scenario, confidence: float, target_points: float) -> None:
    """InputError for a question without sense."""
    _check_positive("--traffic", scenario.traffic)
    if scenario.replicas < 1:
        raise InputError(f"{scenario.replicas} replicas are too few", where="--replicas")
    if scenario.routing not in ROUTINGS:
        raise InputError(
            f"unknown routing {scenario.routing!r}",
            where="--routing",
            remedy=f"one of {', '.join(ROUTINGS)}",
        )
    check_engine(scenario.engine)
    if scenario.engine == "llamacpp":
        raise InputError(
            "llama.cpp keeps whole sequences in slots; forecasts are of caches of blocks",
            where="--engine",
            remedy="analyze --engine llamacpp for the log's own rate",
        )
    if scenario.capacity_blocks is not None and scenario.capacity_blocks < 1:
        raise InputError("the capacity is less than one block", where="--capacity")
    _check_positive("--ttl", scenario.ttl_s)
    _check_positive("--horizon", scenario.horizon_s)
    _check_positive("--target", target_points)
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence} is not between 0 and 1", where="--confidence")


def check_sampled(sampled: str) -> None:
    """InputError for a name that is not in SAMPLED."""
    if sampled not in SAMPLED:
        raise InputError(
            f"unknown unit {sampled!r}", where="--sampled", remedy=f"one of {', '.join(SAMPLED)}"
        )


def check_latency(question: Question) -> None:
    """InputError for latencies where no engine's pool is simulated."""
    asked = question.scenario
    given = question.latency_s is not None or question.prefill_tokens_per_s is not None
    pooled = asked.capacity_blocks is not None and asked.ttl_s is None and asked.engine in POOLS
    if given and not (pooled and asked.is_pooled and asked.horizon_s is None):
        raise InputError(
            "latencies are for one finite cache of an engine, without expiry or horizon",
            where="--latency",
        )
    if given and question.latency_s is None and not asked.keeps_traffic:
        raise InputError("at other traffic it needs --latency", where="--prefill-rate")


def _check_positive(where: str, value: float | None) -> None:
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise InputError(f"{value} is not a number above 0", where=where)


def estimate(
    rate: float | None, half: float | None, confidence: float | None, method: str
) -> Estimate:
    """A rate with low and high inside 0..1; nothing at all if there is no rate."""
    if rate is None or half is None or not np.isfinite([rate, half]).all():
        return Estimate()
    return Estimate(rate, max(0.0, rate - half), min(1.0, rate + half), confidence, method)


def split_of(hits: WeightedHits, capacity: int) -> Split:
    """Shares by cause at the capacity-th capacity of the hits."""
    return split_from(hits.split(capacity))


def split_from(total: TokenSplit) -> Split:
    """The shares of counted tokens."""
    return Split(**{part: total.rate(part) for part in Split.__struct_fields__})


def curve_point(
    hits: WeightedHits, index: int, capacity_blocks: Capacity, half: float | None = None
) -> ForecastPoint:
    """One point of a curve, with its interval if there is a half width."""
    total = hits.split(index)
    band = estimate(total.rate("hit"), half, None, "")
    return ForecastPoint(
        capacity_blocks=capacity_blocks,
        capacity_tokens=None if capacity_blocks is None else capacity_blocks * hits.block_size,
        block_hit_rate=None,
        low=band.low,
        high=band.high,
        **rates_of_point(total),
    )
