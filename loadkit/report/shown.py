"""The parts of the files that a report shows, with their types: what does not fit is refused.

Keys that are not here are not shown, or shown only where they fit (`stages`, `loop_stalls`).
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec

from loadkit.gate.inputs import Count, Rate, misfit
from loadkit.report.shown_log import AppendOnly, Diversity

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Size = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Gap = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]


class _Reason(msgspec.Struct):
    code: str
    message: str
    remedy: str | None = None


class _Endpoint(msgspec.Struct):
    url: str
    model: str


class _Tokenizer(msgspec.Struct):
    name: str
    fingerprint: str


class _Outcomes(msgspec.Struct):
    scheduled: Count
    ok: Count
    http_error: Count
    cut: Count
    timeout: Count
    malformed: Count
    cancelled: Count
    not_sent: Count


class _Error(msgspec.Struct):
    outcome: str
    status: int | None
    requests: Count


class _Delay(msgspec.Struct):
    p50: float | None
    p99: float | None
    max: float | None = None


class _Times(msgspec.Struct):
    n: Count
    p50: Seconds | None
    p90: Seconds | None
    p99: Seconds | None
    mean: Seconds | None = None


class _ByCause(msgspec.Struct):
    replay: _Times
    continuation: _Times
    shared: _Times
    miss: _Times


class _Latency(msgspec.Struct):
    """End-to-end counts from the intended send: a clock's jitter may put it below 0, barely."""

    ttft_s: _Times
    ttft_s_by_cause: _ByCause
    e2e_s: _Times
    itl_s: _Times


class _Totals(msgspec.Struct):
    prompt_tokens: Count | None
    output_tokens: Count | None
    requests_without_cached_tokens: Count


class _Split(msgspec.Struct):
    source: str | None
    hit_rate: Rate | None
    organic_hit_rate: Rate | None
    replay_same_session_rate: Rate | None
    replay_cross_session_rate: Rate | None
    continuation_rate: Rate | None
    shared_rate: Rate | None
    miss_rate: Rate | None
    sessions: Count = 0
    hit_rate_half_width: Seconds | None = None
    miss_compulsory_rate: Rate | None = None
    miss_capacity_rate: Rate | None = None
    miss_unexplained_rate: Rate | None = None
    miss_unexplained_why: str | None = None


class _Witness(msgspec.Struct):
    cached_tokens: Count | None
    prompt_tokens: Count | None


class _Gap(msgspec.Struct):
    unexplained_cached_tokens: Gap | None
    unexplained_prompt_tokens: Gap | None
    agrees: bool | None = None


class _Reconciliation(msgspec.Struct):
    usage: _Witness
    prometheus: _Witness
    prediction: _Witness
    prediction_from_text_tokens: Count | None
    retokenised_tokens: Gap | None
    unanswered_requests: Count
    usage_vs_prometheus: _Gap
    usage_vs_prediction: _Gap
    agrees: bool | None
    usage_gap: dict[str, Gap | None] | None = None
    says: str | None = None


class _Point(msgspec.Struct):
    capacity_tokens: Size | None
    hit_rate: Rate | None
    replay_same_session: Rate | None
    replay_cross_session: Rate | None
    continuation: Rate | None
    shared: Rate | None
    miss_compulsory: Rate | None
    miss_capacity: Rate | None


class Run(msgspec.Struct):
    """run.json."""

    profile: dict[str, Any]
    seed: int
    versions: dict[str, str]
    endpoint: _Endpoint
    tokenizer: _Tokenizer | None
    block_size: Size | None
    capacity_blocks: Count | None
    duration_s: Seconds
    processes: Count
    loop: str
    kind: str
    status: str
    reasons: list[_Reason]
    requests: _Outcomes
    wraps: Count
    truncations: Count
    mutations: Count
    torn_bytes: Count
    schedule_delay_s: _Delay
    totals: _Totals
    split: _Split
    latency: _Latency
    reconciliation: _Reconciliation
    curve: list[_Point] = []
    notes: list[str] = []
    errors: list[_Error] = []
    missing_workers: Count | None = None
    append_only: AppendOnly | None = None
    diversity: Diversity | None = None


class _Estimate(msgspec.Struct):
    estimate: Rate | None = None
    low: Rate | None = None
    high: Rate | None = None


class _ExpectedSplit(msgspec.Struct):
    replay_same_session: Rate | None = None
    replay_cross_session: Rate | None = None
    continuation: Rate | None = None
    shared: Rate | None = None
    miss: Rate | None = None


class _Log(msgspec.Struct):
    requests: Count | None = None


class Forecast(msgspec.Struct):
    """A forecast; all but the rate may be missing."""

    hit_rate: _Estimate | None
    status: str | None = None
    organic_hit_rate: _Estimate | Rate | None = None
    split: _ExpectedSplit | None = None
    log: _Log | None = None
    scenario: dict[str, Any] | None = None
    curve: list[_Point] = []
    warnings: list[str] = []


class Gate(msgspec.Struct):
    """A verdict."""

    verdict: str
    reasons: list[_Reason]
    notes: list[str] = []
    thresholds_from: str = ""


Part = TypeVar("Part", Run, Forecast, Gate)


def fitting(data: Any, kind: type[Part], where: Any) -> None:
    """InputError, naming the key, unless all that is shown of `data` has its type."""
    try:
        msgspec.convert(data, kind)
    except (msgspec.ValidationError, ValueError) as error:
        raise misfit(error, data, where) from error
