"""What the gate reads of a forecast, checked like the run."""

from __future__ import annotations

from typing import Literal

import msgspec

from loadkit.core.spread import Spread
from loadkit.gate.measured import SAME_RATE, Count, Rate, Seconds


class ExpectedRate(msgspec.Struct, frozen=True):
    """low and high None with an estimate: a forecast that does not say how sure it is. error and
    freedom: of a counted rate, as a draw of sessions; None in an older forecast."""

    estimate: Rate | None = None
    low: Rate | None = None
    high: Rate | None = None
    method: str | None = None
    error: Seconds | None = None
    freedom: Seconds | None = None

    def __post_init__(self) -> None:
        ends = (self.low, self.estimate, self.high)
        known = [end for end in ends if end is not None]
        if known != sorted(known):
            raise ValueError("the estimate lies outside its interval")


class Scenario(msgspec.Struct, frozen=True):
    """What production is described as; see `loadkit.forecast.model.Scenario`."""

    traffic: float
    block_size: Count
    capacity_blocks: Count | None
    replicas: Count
    routing: str
    ttl_s: float | None
    horizon_s: float | None
    kept_blocks: list[Count] = []


class LogFacts(msgspec.Struct, frozen=True):
    requests: Count
    sessions: Count
    prompt_tokens: Count
    tokenizer_fingerprint: str | None
    model: str | None
    duration_s: Seconds | None = None
    replies: bool = False


class ExpectedSplit(msgspec.Struct, frozen=True):
    replay_same_session: Rate | None
    replay_cross_session: Rate | None
    continuation: Rate | None
    shared: Rate | None

    @property
    def replay_rate(self) -> float | None:
        known = (self.replay_same_session, self.replay_cross_session)
        return None if None in known else sum(part or 0.0 for part in known)

    @property
    def hit_rate(self) -> float | None:
        parts = (self.replay_rate, self.continuation, self.shared)
        return None if None in parts else sum(part or 0.0 for part in parts)


class Point(msgspec.Struct, frozen=True):
    capacity_blocks: Count
    hit_rate: Rate


class Expected(msgspec.Struct, frozen=True):
    """The parts of a forecast that decide; all have to be there, as in `Measured`."""

    schema: Literal["loadkit.forecast/1"]
    status: Literal["ok", "inconclusive"]
    hit_rate: ExpectedRate
    organic_hit_rate: ExpectedRate
    split: ExpectedSplit
    scenario: Scenario
    log: LogFacts
    curve: list[Point]
    needs: str | None

    def __post_init__(self) -> None:
        whole, parts = self.hit_rate.estimate, self.split.hit_rate
        if (whole is None) != (parts is None):
            raise ValueError("the hit rate or its split is missing")
        if whole is not None and abs(whole - (parts or 0.0)) > SAME_RATE:
            raise ValueError(f"the hit rate is {whole:.4f}, the parts of its split are {parts:.4f}")

    @property
    def spread(self) -> Spread | None:
        """Of a rate that was counted in a log, which is a draw of sessions too; None: not told."""
        rate = self.hit_rate
        if rate.low != rate.high or rate.error is None or not rate.freedom:
            return None
        return Spread(rate.error, rate.freedom)

    @property
    def sessions(self) -> float | None:
        """Sessions that the rate is of: the log's, at the traffic and for the time asked about; None
        for a horizon of a log without times."""
        asked, log = self.scenario, self.log
        if asked.horizon_s is None:
            return log.sessions * asked.traffic
        if not log.duration_s:
            return None
        return log.sessions * asked.traffic * asked.horizon_s / log.duration_s
