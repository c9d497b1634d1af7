"""What a forecast says, as numbers and as JSON `loadkit.forecast/1`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from loadkit.analysis.curve import CurvePoint

SCHEMA = "loadkit.forecast/1"


class Scenario(msgspec.Struct, frozen=True):
    """The production that is asked about. capacity None: infinite; ttl None: nothing expires;
    horizon None: the log's own length. traffic is a multiple of the log's."""

    traffic: float
    capacity_blocks: int | None
    ttl_s: float | None
    replicas: int
    routing: str
    horizon_s: float | None
    block_size: int

    @property
    def is_the_log_itself(self) -> bool:
        """Nothing has to be extrapolated: the log is the production asked about."""
        asked = (self.traffic, self.ttl_s, self.replicas, self.routing, self.horizon_s)
        return asked == (1, None, 1, "pooled", None)


class LogFacts(msgspec.Struct, frozen=True):
    """What the forecast was made from, so that a gate can tell whether a run is comparable.

    tokenizer_fingerprint is None for a log that came as block ids.
    """

    requests: int
    sessions: int
    block_size: int
    tokenizer_fingerprint: str | None
    prompt_tokens: int


class Estimate(msgspec.Struct, frozen=True):
    """A rate with its interval. method "exact": counted, not estimated, so low = high = estimate
    and there is no confidence level. All None when the forecast was refused."""

    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    method: str | None = None


class Split(msgspec.Struct, frozen=True):
    """Shares of prompt tokens by cause at the asked capacity; None when refused."""

    replay_same_session: float | None = None
    replay_cross_session: float | None = None
    continuation: float | None = None
    shared: float | None = None
    miss: float | None = None
    miss_compulsory: float | None = None
    miss_capacity: float | None = None


class Baselines(msgspec.Struct, frozen=True):
    """Naive answers, printed beside the estimate and never as it.

    own_rate: the log's own rate at the asked capacity. scaled_capacity: the same at capacity /
    traffic. last_third: requests of the last third of the window only, the cache warm by the rest.
    """

    own_rate: float | None
    scaled_capacity: float | None
    last_third: float | None


class Forecast(msgspec.Struct, frozen=True):
    """The answer. status "inconclusive": no estimate is made, and `needs` says what is missing."""

    scenario: Scenario
    log: LogFacts
    hit_rate: Estimate
    split: Split
    organic_hit_rate: Estimate
    curve: tuple[CurvePoint, ...]
    self_check: dict[str, Any]
    baselines: Baselines
    status: Literal["ok", "inconclusive"]
    needs: str | None
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON object: plain dicts, lists, numbers and None."""
        return {"schema": SCHEMA, **msgspec.to_builtins(self)}
