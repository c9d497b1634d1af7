"""`forecast`: for production equal to the log, the log's own exact rate; otherwise a refusal.

At the log's own traffic on one cache nothing is estimated: the pass counts what an LRU cache of
that size would have hit, so the estimate has no sampling error and carries no interval. That the
next hour may differ from this one is not part of it. Growing traffic, more replicas, expiry and
other horizons need the superposition simulation, which is not built yet: such a forecast is
inconclusive rather than a naive guess (naive answers are 2 to 41 points wrong on public traces).
"""

from __future__ import annotations

import numpy as np

from loadkit.analysis.curve import HitCurve, hit_curve
from loadkit.analysis.per_request import PerRequest, per_request_of
from loadkit.analysis.reuse import reuse_of
from loadkit.core.errors import InputError
from loadkit.core.trace import IntArray, Trace
from loadkit.forecast.model import Baselines, Estimate, Forecast, LogFacts, Scenario, Split

ROUTINGS = ("pooled", "sticky", "random", "prefix-aware")
EXACT = "exact"


def forecast(
    trace: Trace,
    traffic: float,
    capacity_blocks: int | None = None,
    *,
    ttl_s: float | None = None,
    replicas: int = 1,
    routing: str = "pooled",
    horizon_s: float | None = None,
    tokenizer_fingerprint: str | None = None,
) -> Forecast:
    """Hit rate to expect of production described as a multiple of the log's traffic.

    capacity_blocks is of the whole fleet's cache, None for infinite. Raises InputError for a
    scenario that makes no sense; a forecast that cannot be made honestly is returned with status
    "inconclusive" and no estimate, it is not raised.
    """
    scenario = Scenario(
        traffic, capacity_blocks, ttl_s, replicas, routing, horizon_s, trace.block_size
    )
    _check(scenario)
    reuse = reuse_of(trace)
    curve = hit_curve(reuse)
    requests = per_request_of(reuse, capacity_blocks)
    ok = scenario.is_the_log_itself and trace.num_requests > 0
    return Forecast(
        scenario=scenario,
        log=log_facts(trace, tokenizer_fingerprint),
        hit_rate=_exactly(requests.total().rate("hit")) if ok else Estimate(),
        split=_split(requests) if ok else Split(),
        organic_hit_rate=_exactly(requests.organic_hit_rate()) if ok else Estimate(),
        curve=tuple(map(curve.point, curve.default_capacities())) if ok else (),
        self_check={"method": EXACT} if ok else {},
        baselines=_baselines(curve, scenario, _rate_of(requests, _last_third(trace))),
        status="ok" if ok else "inconclusive",
        needs=None if ok else _needs(scenario),
        warnings=trace.warnings,
    )


def log_facts(trace: Trace, tokenizer_fingerprint: str | None) -> LogFacts:
    """The facts of a log that decide whether another measurement is comparable."""
    return LogFacts(
        requests=trace.num_requests,
        sessions=trace.num_sessions,
        block_size=trace.block_size,
        tokenizer_fingerprint=tokenizer_fingerprint,
        prompt_tokens=int(trace.prompt_tokens.sum()),
    )


def _check(scenario: Scenario) -> None:
    if not scenario.traffic > 0:
        raise InputError(f"traffic {scenario.traffic} is not above 0", where="--traffic")
    if scenario.replicas < 1:
        raise InputError(f"{scenario.replicas} replicas are too few", where="--replicas")
    if scenario.routing not in ROUTINGS:
        raise InputError(
            f"unknown routing {scenario.routing!r}",
            where="--routing",
            remedy=f"one of {', '.join(ROUTINGS)}",
        )
    if scenario.capacity_blocks is not None and scenario.capacity_blocks < 1:
        raise InputError("the capacity is less than one block", where="--capacity")


def _needs(scenario: Scenario) -> str:
    """What this version would need to answer, in words for the user."""
    asked = [
        (scenario.traffic != 1, f"traffic {scenario.traffic:g}x"),
        (scenario.replicas != 1 or scenario.routing != "pooled", "replicas and routing"),
        (scenario.ttl_s is not None, "expiry"),
        (scenario.horizon_s is not None, "another horizon"),
    ]
    reasons = " and ".join(words for applies, words in asked if applies) or "an empty log"
    return (
        f"extrapolation to {reasons} is not built yet: log production itself at the traffic you "
        "ask about and forecast that log with --traffic 1x on one pooled cache"
    )


def _exactly(rate: float | None) -> Estimate:
    """A counted rate: no interval was estimated, so its ends are the rate itself."""
    return Estimate(rate, rate, rate, None, EXACT if rate is not None else None)


def _split(requests: PerRequest) -> Split:
    total = requests.total()
    return Split(**{part: total.rate(part) for part in Split.__struct_fields__})


def _baselines(curve: HitCurve, scenario: Scenario, last_third: float | None) -> Baselines:
    capacity = scenario.capacity_blocks
    scaled = None if capacity is None else max(1, round(capacity / scenario.traffic))
    own, at_scaled = curve.split(capacity), curve.split(scaled)
    return Baselines(own.rate("hit"), at_scaled.rate("hit"), last_third)


def _last_third(trace: Trace) -> IntArray:
    """Rows in the last third of the window; of the requests if the log has no time."""
    if trace.arrival_s is None or not len(trace.arrival_s):
        return np.arange(trace.num_requests)[2 * trace.num_requests // 3 :]
    first, last = trace.arrival_s[0], trace.arrival_s[-1]
    return np.flatnonzero(trace.arrival_s >= first + (last - first) * 2 / 3)


def _rate_of(requests: PerRequest, rows: IntArray) -> float | None:
    tokens = int(requests.prompt_tokens[rows].sum())
    return int(requests.resident_tokens[rows].sum()) / tokens if tokens else None
