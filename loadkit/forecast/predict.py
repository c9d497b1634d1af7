"""`forecast`: which way a question is answered, or why it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np

from loadkit.analysis.kept import SHARED_POOL
from loadkit.analysis.nodes import node_stream
from loadkit.analysis.per_request import per_request
from loadkit.core.trace import Trace
from loadkit.forecast.baselines import baselines
from loadkit.forecast.exact import count_exactly
from loadkit.forecast.grown import grow_traffic
from loadkit.forecast.model import Estimate, Forecast, LogFacts, Scenario
from loadkit.forecast.question import Question, check_latency, check_sampled, check_scenario
from loadkit.forecast.refuse import (
    NO_TENANTS,
    NO_TURNS,
    prefix_refusals,
    refusals,
    rerun_refusals,
    torn_refusals,
)
from loadkit.forecast.rerun import rerun_log
from loadkit.forecast.sample import Sample, sample_of
from loadkit.forecast.time_prefix import extend_window
from loadkit.forecast.torn import before_share, mend
from loadkit.forecast.turns import TurnSource, turn_counts

_WHOLE = 0.5  # of the later turns of whole sessions, more than that have the turn before in the log


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
    confidence: float = 0.9,
    target_points: float = 5.0,
    seed: int = 0,
    curve_blocks: Sequence[int | None] | None = None,
    engine: str = "vllm",
    sampled: str = "sessions",
    turns: TurnSource | None = None,
    latency_s: float | None = None,
    prefill_tokens_per_s: float | None = None,
) -> Forecast:
    """Hit rate to expect of production described as a multiple of the log's traffic.

    capacity_blocks is of the whole fleet's cache, None for infinite. ttl_s: a block expires that
    long after its last use. horizon_s: production starts cold and runs that long; None: as long as
    the log. target_points: widest half interval that is still an answer. curve_blocks: capacities of
    the curve, log-spaced ones unless given. engine: vllm, sglang or none, see `analysis.engines`;
    the trace must be in that engine's blocks. sampled: what the log is a random share of (SAMPLED);
    "requests" needs `turns`, the earlier turns that each request shows. At the log's own traffic a
    finite cache is the engine's own pool where the log has times and latencies, or `latency_s` stands
    for them all (see `simulate.engine_pools.place`). Same arguments, same seed:
    same forecast.

    Raises InputError for a scenario that makes no sense. A forecast that cannot be made honestly is
    returned with status "inconclusive", it is not raised.
    """
    scenario = Scenario(
        traffic, capacity_blocks, ttl_s, replicas, routing, horizon_s, trace.block_size, engine
    )
    check_scenario(scenario, confidence, target_points)
    check_sampled(sampled)
    trace = _countable(trace, scenario)
    scenario = msgspec.structs.replace(scenario, kept_blocks=trace.kept_blocks)
    stream = node_stream(trace, engine)
    question = Question(
        trace=trace,
        stream=stream,
        scenario=scenario,
        log=log_facts(trace, tokenizer_fingerprint),
        baselines=baselines(trace, stream, scenario),
        confidence=confidence,
        target_points=target_points,
        seed=seed,
        times=traffic,
        curve_blocks=curve_blocks,
        sampled=sampled,
        latency_s=latency_s,
        prefill_tokens_per_s=prefill_tokens_per_s,
    )
    check_latency(question)
    if not trace.num_requests:
        return _refused(question, ["the log is empty"])
    if traffic == 1:
        return _answer(question, sample_of(stream))
    if sampled == "requests":
        return _mended(question, turns)
    if sampled == "tenants":
        return _by_tenant(question)
    return _answer(_warned(question), sample_of(stream))


def _countable(trace: Trace, scenario: Scenario) -> Trace:
    """The trace for this question. Where a model keeps its states and windows depends on who came
    before, so it can be counted in the log's own order only; else every block counts as kept."""
    if not trace.kept_blocks:
        return trace
    notes = [] if scenario.capacity_blocks is None else [SHARED_POOL]
    if not scenario.keeps_traffic or scenario.horizon_s is not None:
        rates = [
            per_request(each, None).total().rate("hit") or 0.0
            for each in (trace, replace(trace, kept_blocks=()))
        ]
        notes.append(
            "an upper bound: this model keeps states or windows at a few places only, and where they"
            " would be at other traffic is not modelled. At the log's own traffic that takes the rate"
            f" from {rates[1]:.1%} to {rates[0]:.1%} in an infinite cache"
        )
        trace = replace(trace, kept_blocks=())
    return replace(trace, warnings=(*trace.warnings, *notes))


def log_facts(trace: Trace, tokenizer_fingerprint: str | None) -> LogFacts:
    """The facts of a log that decide whether another measurement is comparable."""
    return LogFacts(
        requests=trace.num_requests,
        sessions=trace.num_sessions,
        block_size=trace.block_size,
        tokenizer_fingerprint=tokenizer_fingerprint,
        prompt_tokens=int(trace.prompt_tokens.sum()),
        duration_s=_duration_s(trace),
        replies=trace.resident_ids is not None,
    )


def _duration_s(trace: Trace) -> float | None:
    if trace.arrival_s is None or not trace.num_requests:
        return None
    return float(trace.arrival_s.max() - trace.arrival_s.min())


def _by_tenant(question: Question) -> Forecast:
    """Tenants take the place of sessions: copies are of whole tenants, and so are half samples."""
    asked, tenant = question.scenario, question.trace.tenant
    if tenant is None:
        return _refused(question, [NO_TENANTS])
    if asked.routing == "sticky" and not asked.is_pooled:
        return _refused(question, ["sticky routing is by session, and copies would be of tenants"])
    stream = question.stream
    sample = sample_of(replace(stream, requests=replace(stream.requests, session=tenant)))
    return _grown(question, sample, unit="tenant")


def _warned(question: Question) -> Question:
    """With a warning if messages show that most earlier turns are missing."""
    trace = question.trace
    if trace.chats is None:
        return question
    share = before_share(trace, turn_counts(trace.chats))
    if share is None or share >= _WHOLE:
        return question
    note = (
        f"only {share:.0%} of the later turns have the turn before them in the log: if requests were"
        " sampled one by one, this forecast is far too low; --sampled requests"
    )
    return replace(question, trace=replace(trace, warnings=(*trace.warnings, note)))


def _mended(question: Question, turns: TurnSource | None) -> Forecast:
    """Sessions are made of torn requests, and those are grown."""
    if turns is None or not (turns.counts > 0).any():
        return _refused(question, [NO_TURNS])
    mended = mend(question.trace, turns, np.random.default_rng([question.seed, 6]))
    reasons = torn_refusals(mended, question.scenario)
    if reasons:
        return _refused(question, reasons)
    stream = node_stream(mended.trace, question.scenario.engine)
    times = question.scenario.traffic * mended.times
    question = replace(question, trace=mended.trace, stream=stream, times=times)
    return _grown(question, sample_of(stream))


def _answer(question: Question, sample: Sample) -> Forecast:
    """Count what can be counted, rerun what can be rerun, and extrapolate only the rest."""
    asked = question.scenario
    longer = asked.horizon_s is not None and asked.horizon_s > sample.window_s
    if longer:
        reasons = prefix_refusals(sample, asked)
        return _refused(question, reasons) if reasons else extend_window(question, sample)
    if asked.traffic != 1:
        return _grown(question, sample)
    reasons = rerun_refusals(sample, asked)
    if reasons:
        return _refused(question, reasons)
    if asked.keeps_traffic and asked.horizon_s is None:
        return count_exactly(question)
    return rerun_log(question, sample)


def _grown(question: Question, sample: Sample, unit: str = "session") -> Forecast:
    reasons = [text.replace("session", unit) for text in refusals(sample, question.scenario)]
    return _refused(question, reasons) if reasons else grow_traffic(question, sample)


def _refused(question: Question, reasons: list[str]) -> Forecast:
    """No number, and why."""
    return question.answer(Estimate(), Estimate(), needs="; ".join(reasons), assumes=None)
