"""What a gate may be told to tolerate: the `gate` section of a profile, or a gate.yaml."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Tolerance(_Part):
    """How much worse than a baseline run is still no regression. Shares and rates are 0..1."""

    hit_rate_drop: float = Field(
        0.02, ge=0, le=1, description="hit rate that may be lost: 0.02 are two points"
    )
    ttft_ratio: float = Field(
        1.10, ge=1, le=100, description="time to first token, new / baseline (geometric mean)"
    )
    e2e_ratio: float = Field(
        1.10, ge=1, le=100, description="end-to-end time, new / baseline (geometric mean)"
    )
    failed_share: float = Field(
        0.01, ge=0, le=1, description="share of requests without an answer that may be added"
    )


class Thresholds(_Part):
    """Limits of the gate. The defaults are explained in docs/ci.md. Their own limits are such that
    no file can switch a check off: rates 30 points apart never pass."""

    confidence: float = Field(
        0.95, ge=0.8, le=0.999, description="of every interval of a measurement"
    )
    allowance: float = Field(
        0.02, ge=0, le=0.1, description="least difference of rates that counts; 0.02 are two points"
    )
    min_requests: int = Field(30, ge=2, description="answered requests that a verdict needs")
    min_sessions: int = Field(10, ge=3, description="sessions that a verdict needs")
    min_effective_sessions: float = Field(
        5, ge=2, description="equal sessions that the uneven ones of a run must be worth"
    )
    min_answered_share: float = Field(
        0.9, ge=0.5, le=1, description="share of the plan that must have been answered"
    )
    max_half_width: float = Field(
        0.10, gt=0, le=0.2, description="no hit rate, measured or forecast, less certain than this"
    )
    max_expected_replay: float = Field(
        0.3, ge=0, le=1, description="share of a forecast that its log may owe to replays"
    )
    max_unreported_share: float = Field(
        0.01, ge=0, le=0.1, description="share of answers that may lack cached tokens"
    )
    max_capacity_difference: float = Field(
        0.01, ge=0, le=0.2, description="caches that differ by this share count as equal"
    )
    max_schedule_delay_p99_s: float | None = Field(
        None, gt=0, description="p99 of actual minus intended send (None: the run's own limit)"
    )
    max_wraps: int = Field(0, ge=0, description="times a corpus may be started again")
    require_fingerprints: bool = Field(
        False, description="refuse a forecast that does not say which tokenizer it is for"
    )
    regression: Tolerance = Tolerance()
