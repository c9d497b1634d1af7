"""A runnable workload."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from loadkit.profiles.arrivals import ClosedLoop, OpenLoop
from loadkit.profiles.goals import Expected, Slo
from loadkit.profiles.kinds import MixtureTraffic, Traffic
from loadkit.profiles.part import Part
from loadkit.profiles.request import Request
from loadkit.profiles.warming import Priming
from loadkit.thresholds import Thresholds

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
MULTI_TURN = ("conversation", "agent", "document")


class Profile(Part):
    """A runnable workload. Errors about several sections begin with the key they are about."""

    schema_: Literal["loadkit.profile/1"] = Field(alias="schema")
    name: str = Field(pattern=NAME_PATTERN)
    summary: str = Field(min_length=1, description="one line for the list of profiles")
    seed: int = Field(1, ge=0, description="same seed, same bytes")
    traffic: Traffic
    arrivals: OpenLoop | ClosedLoop = Field(discriminator="loop")
    request: Request
    max_duration_s: float = Field(
        600.0, gt=0, le=1e7, description="the run is stopped after so long"
    )
    warmup_s: float = Field(
        0.0,
        ge=0,
        le=1e7,
        description="sessions that start earlier are sent and kept, but not in the run's figures "
        "(open loop, counted after priming)",
    )
    warmup_sessions: int = Field(
        0, ge=0, le=1_000_000, description="the first so many sessions are warm-up"
    )
    priming: Priming | None = Field(None, description="fill the cache first (None: no)")
    cache: Literal["as_is", "reset", "salt"] = Field(
        "as_is",
        description="what the server's cache holds at the start: whatever it does, nothing (a "
        "verified reset), or nothing of ours (a salt of this run, which is isolation, no reset)",
    )
    slo: Slo | None = None
    gate: Thresholds | None = Field(None, description="what the gate tolerates of its runs")
    expected: Expected | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        self._check_count()
        if self.warmup_s and isinstance(self.arrivals, ClosedLoop):
            raise ValueError("warmup_s: a closed loop has no planned times; use warmup_sessions")
        self._check_api()
        return self

    def _check_count(self) -> None:
        if isinstance(self.traffic, MixtureTraffic):
            if self.traffic.sessions is None and isinstance(self.arrivals, ClosedLoop):
                raise ValueError("arrivals.loop: parts have arrivals of their own, which are open")
            return
        counted_by = self.traffic.counted_by
        if counted_by is not None and getattr(self.traffic, counted_by) is None:
            raise ValueError(f"traffic.{counted_by}: missing")

    def _check_api(self) -> None:
        if self.request.api != "completions":
            return
        traffic = self.traffic
        parts = traffic.parts if isinstance(traffic, MixtureTraffic) else ()
        for kind in (traffic.kind, *(part.traffic.kind for part in parts)):
            if kind in MULTI_TURN:
                raise ValueError(f"request.api: completions have no turns, which `{kind}` needs")
