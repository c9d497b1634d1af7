"""What a run is held against: limits of the service, and rates known from services like it."""

from __future__ import annotations

from pydantic import Field, model_validator

from loadkit.profiles.part import Part


class Slo(Part):
    """Limits that a request must meet to count as goodput. None: no such limit."""

    ttft_s: float | None = Field(None, gt=0, description="time to first token")
    tpot_s: float | None = Field(None, gt=0, description="time per output token after the first")
    e2e_s: float | None = Field(None, gt=0, description="intended send to the end of the answer")
    share: float = Field(0.99, gt=0, le=1, description="share of requests that must meet them all")


class Expected(Part):
    """Hit rate this kind of service is known to see, as a range for orientation (never used)."""

    hit_rate_low: float = Field(ge=0, le=1)
    hit_rate_high: float = Field(ge=0, le=1)
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _in_order(self) -> Expected:
        if self.hit_rate_low > self.hit_rate_high:
            raise ValueError("`hit_rate_low` is above `hit_rate_high`")
        return self
