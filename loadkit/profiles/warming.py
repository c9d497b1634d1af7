"""What is sent before the measurement: to fill the cache on purpose, or to let a system settle."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from loadkit.profiles.part import Part


class Priming(Part):
    """Requests sent before all others, one answer token each, to put prefixes into the cache.

    They have the phase `priming`, sessions of their own, and no part in the run's figures. Whatever
    they put there makes later requests hit: a choice to be named beside every rate.
    """

    what: Literal["system_prompts", "first_n"] = Field(
        description="system_prompts: each distinct shared prefix (system prompt, tools, document) "
        "once; first_n: the opening request of the first `n` sessions, which makes those replay"
    )
    n: int | None = Field(None, ge=1, le=1_000_000, description="sessions (first_n)")
    lead_s: float = Field(
        10.0, gt=0, le=1e6, description="time for it before the schedule begins (open loop)"
    )

    @model_validator(mode="after")
    def _counted(self) -> Priming:
        if (self.what == "first_n") != (self.n is not None):
            raise ValueError("first_n needs `n`" if self.n is None else f"{self.what} takes no `n`")
        return self
