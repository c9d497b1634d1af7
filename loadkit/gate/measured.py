"""What the gate reads of run.json, checked: a rate above 1 is an error."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from loadkit.runs.plausible import CounterDoubts, Impossible

# A figure beyond what a float counts exactly is damage, not a run.
Rate = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
# Parts and their sum come from the same integers; only the last bits may differ.
SAME_RATE = 1e-6


class RunReason(msgspec.Struct, frozen=True):
    code: str
    message: str


class Endpoint(msgspec.Struct, frozen=True):
    """prefix_caching: whether the server's own setting has it on; None: the server does not say.
    kept_blocks: see `core.trace.Trace`; empty where every block is kept or nobody says."""

    model: str | None
    tokenizer_fingerprint: str | None
    prefix_caching: bool | None = None
    kept_blocks: list[Count] = []


class Counts(msgspec.Struct, frozen=True):
    """Requests of the measured phase."""

    scheduled: Count
    ok: Count


class MeasuredSplit(msgspec.Struct, frozen=True):
    """None throughout: the server reported no cached tokens, or nobody could split them."""

    source: str | None
    requests: Count
    sessions: Count
    prompt_tokens: Count | None
    hit_rate: Rate | None
    hit_rate_half_width: Seconds | None
    replay_same_session_rate: Rate | None
    replay_cross_session_rate: Rate | None
    continuation_rate: Rate | None
    shared_rate: Rate | None
    organic_hit_rate: Rate | None
    miss_unexplained: Count | None = None
    miss_unexplained_why: str | None = None

    @property
    def replay_rate(self) -> float:
        """Both kinds of replay; 0 only if the split is known (check hit_rate first)."""
        return (self.replay_same_session_rate or 0.0) + (self.replay_cross_session_rate or 0.0)


class Witness(msgspec.Struct, frozen=True):
    cached_tokens: Count | None
    prompt_tokens: Count | None

    @property
    def rate(self) -> float | None:
        """Cached / prompt tokens; None without either."""
        if self.cached_tokens is None or not self.prompt_tokens:
            return None
        return self.cached_tokens / self.prompt_tokens


class Reconciliation(msgspec.Struct, frozen=True):
    """usage_all_phases, prometheus and prediction_all_phases are of the whole run, the rest of its
    measured phase. says: whether the witnesses agree, in one line."""

    usage: Witness
    usage_all_phases: Witness
    prometheus: Witness
    prediction: Witness
    prediction_all_phases: Witness
    prediction_low_tokens: Count | None
    prediction_high_tokens: Count | None
    prediction_infinite_tokens: Count | None
    prediction_capacity_blocks: Count | None
    prediction_overlap_tokens: Count | None
    unanswered_requests: Count
    impossible: Impossible
    counters: CounterDoubts
    says: str

    @property
    def allowed_tokens(self) -> tuple[int, int] | None:
        """Least and most cached tokens that the prediction allows: one request after another, with
        running requests holding their blocks, and what else the run found. None: no prediction."""
        served = self.prediction.cached_tokens
        if served is None:
            return None
        others = (
            self.prediction_overlap_tokens,
            self.prediction_low_tokens,
            self.prediction_high_tokens,
        )
        ends = [served, *(end for end in others if end is not None)]
        return min(ends), max(ends)

    @property
    def resident_tokens(self) -> tuple[int, int] | None:
        """The same at the server's size; None if that is not known either."""
        return None if self.prediction_capacity_blocks is None else self.allowed_tokens


class Tokenizer(msgspec.Struct, frozen=True):
    fingerprint: str


class PromptIds(msgspec.Struct, frozen=True):
    """Whose token ids the prediction is made of; None: there is no prediction."""

    source: Literal["server", "tokenizer"] | None


class FirstDifference(msgspec.Struct, frozen=True):
    server_tokens: Count
    local_tokens: Count
    first_token: Count | None


class Template(msgspec.Struct, frozen=True):
    """What comparing the first answers' prompts with the tokenizer's found."""

    compared: Count
    different: Count
    first: FirstDifference | None


class Delay(msgspec.Struct, frozen=True):
    """Seconds of actual minus intended send."""

    p99: float | None


class Measured(msgspec.Struct, frozen=True):
    """The parts of run.json that decide. Every one has to be there, null where it is not known: a
    file that lost one must not look like a run without that fault.

    left: requests that users left on purpose; the plan says so, and nobody waits for their answers.
    kind: of traffic, as the profile names it. prompt_ids, template: an older loadkit did not look.
    """

    schema: Literal["loadkit.run/1"]
    status: Literal["ok", "invalid"]
    reasons: list[RunReason]
    endpoint: Endpoint
    tokenizer: Tokenizer | None
    block_size: Count | None
    capacity_blocks: Count | None
    requests: Counts
    left: Count
    wraps: Count
    mutations: Count
    loop: str | None
    kind: str
    schedule_delay_s: Delay
    split: MeasuredSplit
    reconciliation: Reconciliation
    prompt_ids: PromptIds | None = None
    template: Template | None = None

    def __post_init__(self) -> None:
        if self.status == "ok" and self.reasons:
            raise ValueError(f"status ok, but {self.reasons[0].code} is a reason why it is not")

    @property
    def answered(self) -> int:
        return self.requests.ok

    @property
    def records_lost(self) -> bool:
        """Whether requests may have been sent of which no record is left: they fill the cache, too."""
        return any(reason.code in ("torn_journal", "missing_workers") for reason in self.reasons)

    @property
    def all_known(self) -> bool:
        """Whether every request that may have filled the cache has its record and its answer."""
        return not self.reconciliation.unanswered_requests and not self.records_lost
