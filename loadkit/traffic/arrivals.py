"""Start times of sessions: unit-rate arrivals of a process, mapped through the rate's integral.

With L(t) the integral of the rate from 0 to t, an arrival at u of the unit-rate process starts at
L^-1(u). For poisson this is exactly the inhomogeneous process with that rate (Cinlar, 1975);
gamma and constant gaps are stretched the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from random import Random
from typing import NamedTuple

from loadkit.core.errors import InputError
from loadkit.profiles import ClosedLoop, Diurnal, OpenLoop, Profile

SINUS_STEPS = 96  # straight pieces of a sinus: within 0.06% of it


class Piece(NamedTuple):
    """A stretch of time in which the rate changes linearly. duration_s may be infinite at a
    constant rate."""

    duration_s: float
    from_per_s: float
    to_per_s: float

    @property
    def arrivals(self) -> float:
        """Expected arrivals in it."""
        if math.isinf(self.duration_s):
            return math.inf
        return self.duration_s * (self.from_per_s + self.to_per_s) / 2

    def time_of(self, arrivals: float) -> float:
        """Seconds after its start when the integral of the rate is `arrivals`: the root of
        a t + (b - a) t^2 / 2T, in the form that keeps its digits where b is near a."""
        slope = (self.to_per_s - self.from_per_s) / self.duration_s
        root = math.sqrt(max(0.0, self.from_per_s**2 + 2 * slope * arrivals))
        return 2 * arrivals / (self.from_per_s + root) if arrivals else 0.0


class StageEdge(NamedTuple):
    """One step of a staircase, in seconds after the run's start; start_s is in it, end_s is not."""

    start_s: float
    end_s: float
    rate_per_s: float


def stage_edges(profile: Profile) -> list[StageEdge]:
    """The stages of a saturation search; [] for other arrivals. A session is of the stage that its
    `start_s` falls into; those before the first are priming."""
    arrivals = profile.arrivals
    if isinstance(arrivals, ClosedLoop) or arrivals.stages is None:
        return []
    edges, now = [], lead_s(profile)
    for stage in arrivals.stages:
        edges.append(StageEdge(now, now + stage.duration_s, stage.rate_per_s))
        now += stage.duration_s
    return edges


def lead_s(profile: Profile) -> float:
    """Seconds set aside before the schedule for priming."""
    is_open = isinstance(profile.arrivals, OpenLoop)
    return profile.priming.lead_s if profile.priming and is_open else 0.0


def start_times(
    arrivals: OpenLoop | ClosedLoop,
    count: int,
    *,
    seed: str,
    where: str,
    logged_s: Sequence[float] | None = None,
) -> list[float]:
    """Intended starts in seconds, one a session. Closed loops start sessions when users are free:
    all 0. Stages may give fewer than `count`: as many as arrive in them.

    InputError if a log has no times, or if there are fewer sessions than the stages need.
    """
    if isinstance(arrivals, ClosedLoop):
        return [0.0] * count
    if arrivals.process == "log":
        return _logged(logged_s, where)
    units = _unit_arrivals(arrivals, Random(f"{seed} arrivals"))
    times: list[float] = []
    for start_s in _mapped(units, _pieces(arrivals)):
        if len(times) == count:
            break
        times.append(start_s)
    else:  # the stages have ended
        return times
    if arrivals.stages is not None:
        _require_enough(arrivals, count, times[-1] if times else 0.0, where)
    return times


def _logged(logged_s: Sequence[float] | None, where: str) -> list[float]:
    if logged_s is None:
        raise InputError(
            "arrivals.process `log` needs a log with a timestamp in every row, sent once",
            where=where,
            remedy="use poisson or constant with rate_per_s",
        )
    return list(logged_s)


def _require_enough(arrivals: OpenLoop, count: int, last_s: float, where: str) -> None:
    duration_s = sum(stage.duration_s for stage in arrivals.stages or ())
    needed = sum(stage.rate_per_s * stage.duration_s for stage in arrivals.stages or ())
    enough = math.ceil(needed + 4 * math.sqrt(needed))
    raise InputError(
        f"the stages last {duration_s:g} s, but the traffic's {count} sessions end at "
        f"{last_s:.1f} s",
        where=where,
        remedy=f"ask for about {enough} sessions, or shorten arrivals.stages",
    )


def _unit_arrivals(arrivals: OpenLoop, rng: Random) -> Iterator[float]:
    """Arrivals at a rate of 1. Constant ones begin at 0."""
    shape, now = arrivals.burstiness or 1.0, 0.0
    if arrivals.process == "constant":
        number = 0
        while True:
            yield float(number)
            number += 1
    while True:
        gamma = arrivals.process == "gamma"
        now += rng.gammavariate(shape, 1 / shape) if gamma else rng.expovariate(1.0)
        yield now


def _pieces(arrivals: OpenLoop) -> Iterator[Piece]:
    if arrivals.stages is not None:
        yield from (
            Piece(one.duration_s, one.rate_per_s, one.rate_per_s) for one in arrivals.stages
        )
    elif arrivals.diurnal is not None:
        day = _day(arrivals.diurnal)
        while True:
            yield from day
    elif arrivals.ramp is not None:
        ramp = arrivals.ramp
        yield Piece(ramp.over_s, ramp.from_per_s, ramp.to_per_s)
        yield Piece(math.inf, ramp.to_per_s, ramp.to_per_s)
    else:
        rate = arrivals.rate_per_s or 1.0
        yield Piece(math.inf, rate, rate)


def _day(diurnal: Diurnal) -> list[Piece]:
    if diurnal.hourly is not None:
        each, mean = diurnal.period_s / len(diurnal.hourly), sum(diurnal.hourly)
        scale = diurnal.mean_per_s * len(diurnal.hourly) / mean
        return [Piece(each, weight * scale, weight * scale) for weight in diurnal.hourly]
    step = diurnal.period_s / SINUS_STEPS
    rates = [
        diurnal.mean_per_s * (1 - diurnal.amplitude * math.cos(2 * math.pi * number / SINUS_STEPS))
        for number in range(SINUS_STEPS + 1)
    ]
    return [Piece(step, *pair) for pair in pairwise(rates)]


def _mapped(units: Iterator[float], pieces: Iterator[Piece]) -> Iterator[float]:
    """Times of unit-rate arrivals; ends with the last piece."""
    begun_s = passed = 0.0
    unit = next(units)
    for piece in pieces:
        arrivals = piece.arrivals
        while unit - passed < arrivals:
            yield begun_s + piece.time_of(unit - passed)
            unit = next(units)
        begun_s += piece.duration_s
        passed += arrivals
