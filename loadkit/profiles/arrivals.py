"""When sessions start: at planned times (open loop), or when a user is free (closed loop)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from loadkit.profiles.part import Part

RATES = ("rate_per_s", "ramp", "diurnal", "stages")


class Ramp(Part):
    """A rate that changes linearly, and then stays."""

    from_per_s: float = Field(ge=0, le=1e6, description="session starts per second at the start")
    to_per_s: float = Field(ge=1e-6, le=1e6, description="session starts per second at its end")
    over_s: float = Field(gt=0, le=1e7, description="how long the change takes")


class Diurnal(Part):
    """A rate that goes with the hours of a day, again and again.

    `hourly` gives weights of equal parts of the period, 24 of them being its hours; without it the
    rate is mean_per_s * (1 + amplitude * sin(2 pi t / period_s - pi / 2)): lowest at the start.
    """

    mean_per_s: float = Field(ge=1e-6, le=1e6, description="session starts per second on average")
    period_s: float = Field(
        86_400.0, gt=0, le=1e7, description="length of the day; shorter: a day in fast motion"
    )
    amplitude: float = Field(0.5, ge=0, le=1, description="of the sinus, as a share of the mean")
    hourly: tuple[float, ...] | None = Field(
        None, min_length=2, max_length=1440, description="weights instead of a sinus"
    )
    source: str = Field(min_length=1, description="where the shape comes from")

    @model_validator(mode="after")
    def _has_weight(self) -> Diurnal:
        if self.hourly is not None and (min(self.hourly) < 0 or sum(self.hourly) <= 0):
            raise ValueError("`hourly` must not be negative, nor all 0")
        return self


class Stage(Part):
    """A step of a staircase of rates."""

    rate_per_s: float = Field(ge=1e-6, le=1e6, description="session starts per second")
    duration_s: float = Field(gt=0, le=1e7, description="how long it lasts")


class OpenLoop(Part):
    """Sessions start at planned times whether or not earlier ones have finished.

    The process says how regularly, one of rate_per_s, ramp, diurnal and stages how often: unit-rate
    arrivals are mapped through the inverse of the rate's integral, which for poisson is the exact
    inhomogeneous process. Stages are a search for saturation: as many sessions are sent as arrive
    in them, and it is an error if the traffic has fewer.
    """

    loop: Literal["open"]
    process: Literal["poisson", "gamma", "constant", "log"] = Field(
        "poisson", description="log: the log's own timestamps (replay only)"
    )
    burstiness: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="shape of gamma gaps: 1 is poisson, below 1 is burstier; their coefficient of "
        "variation is 1 / sqrt(burstiness)",
    )
    rate_per_s: float | None = Field(None, ge=1e-6, le=1e6, description="session starts per second")
    ramp: Ramp | None = None
    diurnal: Diurnal | None = None
    stages: tuple[Stage, ...] | None = Field(None, min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _has_rate(self) -> OpenLoop:
        given = [name for name in RATES if getattr(self, name) is not None]
        if self.process == "log":
            if given:
                raise ValueError(f"the log says when: `{given[0]}` would have no effect")
        elif not given:
            raise ValueError(f"{self.process} arrivals need `rate_per_s`")
        elif len(given) > 1:
            raise ValueError(f"give `{given[0]}` or `{given[1]}`, not both")
        if (self.burstiness is not None) != (self.process == "gamma"):
            raise ValueError(
                "gamma arrivals need `burstiness`"
                if self.process == "gamma"
                else f"{self.process} arrivals take no `burstiness`"
            )
        return self


class ClosedLoop(Part):
    """A fixed number of users, each starting its next session when the last has ended.

    ramp_up_s: user k of n starts k * ramp_up_s / n seconds after the run does.
    """

    loop: Literal["closed"]
    users: int = Field(ge=1, le=100_000, description="concurrent users")
    ramp_up_s: float = Field(
        0.0, ge=0, le=1e6, description="users start one after the other over so long"
    )
