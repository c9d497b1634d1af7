"""What a forecast says, as numbers and as JSON `loadkit.forecast/1`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Literal

import msgspec

from loadkit.analysis.curve import CurvePoint
from loadkit.analysis.simulate.engine_pools import Placement
from loadkit.core.split import check_shares

SCHEMA = "loadkit.forecast/1"


class Scenario(msgspec.Struct, frozen=True):
    """The production that is asked about. capacity None: infinite; ttl None: nothing expires;
    horizon None: the log's own length. traffic is a multiple of the log's. engine: whose rule says
    how much of a prompt may hit (`analysis.engines`). kept_blocks: of a model whose states or windows
    are kept at a few places (`core.trace.Trace`); empty: every block counts as kept."""

    traffic: float
    capacity_blocks: int | None
    ttl_s: float | None
    replicas: int
    routing: str
    horizon_s: float | None
    block_size: int
    engine: str = "vllm"
    kept_blocks: tuple[int, ...] = ()

    @property
    def is_pooled(self) -> bool:
        """One cache serves everybody."""
        return self.routing == "pooled" or self.replicas == 1

    @property
    def keeps_traffic(self) -> bool:
        """The log's own requests on one cache: nothing about traffic has to be extrapolated."""
        return self.traffic == 1 and self.is_pooled


class LogFacts(msgspec.Struct, frozen=True):
    """What the forecast was made from, so that a gate can tell whether a run is comparable.

    tokenizer_fingerprint is None for a log that came as block ids. model: the served model that the
    forecast is for, if somebody said so; a gate refuses a run of another. duration_s: from the first
    request to the last, None without times. replies: replies were in the cache that was counted.
    """

    requests: int
    sessions: int
    block_size: int
    tokenizer_fingerprint: str | None
    prompt_tokens: int
    model: str | None = None
    duration_s: float | None = None
    replies: bool = False


class Estimate(msgspec.Struct, frozen=True):
    """A rate with its interval; all None when the forecast was refused.

    method says how it was made. "exact": counted in the log, so low = high = estimate and there is
    no confidence level. "superposition": the log's sessions grown to production's traffic.
    "thinning": parts of the log, for less traffic. "torn_requests": the same after sessions were made
    of requests sampled one by one. "tenants": copies are of whole tenants. "time_prefix": the log's
    window extended. "rerun": the log itself on other replicas or from other starts.

    error and freedom, of a counted hit rate: its standard error by sessions, as a draw of such
    sessions, and that error's degrees of freedom (`core.spread`). A rate that was counted has no other
    uncertainty; whoever compares it with another draw needs them.
    """

    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    method: str | None = None
    error: float | None = None
    freedom: float | None = None

    def __post_init__(self) -> None:
        ends = {"estimate": self.estimate, "low": self.low, "high": self.high}
        check_shares("a forecast", ends)


class Split(msgspec.Struct, frozen=True):
    """Shares of prompt tokens by cause at the asked capacity; None when refused.

    With replicas, miss_capacity has the blocks that only another replica holds too.
    """

    replay_same_session: float | None = None
    replay_cross_session: float | None = None
    continuation: float | None = None
    shared: float | None = None
    miss: float | None = None
    miss_compulsory: float | None = None
    miss_capacity: float | None = None

    def __post_init__(self) -> None:
        check_shares("the forecast's split", msgspec.structs.asdict(self))


class ForecastPoint(CurvePoint, frozen=True):
    """A point of the curve with the interval of its hit rate; low and high are None where the
    curve was counted or has no interval. block_hit_rate is None in every forecast that is not
    exact."""

    low: float | None = None
    high: float | None = None


class Baselines(msgspec.Struct, frozen=True):
    """Naive answers, printed beside the estimate and never as it.

    own_rate: the log's own rate at the asked capacity. scaled_capacity: the same at capacity /
    traffic. last_third: requests of the last third of the window only, the cache warm by the rest.
    """

    own_rate: float | None
    scaled_capacity: float | None
    last_third: float | None

    def __post_init__(self) -> None:
        check_shares("the naive answers", msgspec.structs.asdict(self))


class Forecast(msgspec.Struct, frozen=True):
    """The answer.

    status "inconclusive": either the forecast was refused and there is no estimate, or its interval
    is wider than asked for and estimate, low and high are there to be seen, not to be relied on.
    `needs` says what is missing. `assumes` is what the estimate holds under, None when refused.
    placement: whether a finite cache was filled on arrival or by the engine's own pool; the curve and
    all that is not the estimate and its split are always of the former. None: infinite, or no pool.
    warm_hit_rate: the same for requests of the last third of the period, when the cache is warm.
    """

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
    warm_hit_rate: float | None = None
    assumes: str | None = None
    placement: Placement | None = None

    def __post_init__(self) -> None:
        check_shares("the forecast", {"warm_hit_rate": self.warm_hit_rate})

    def to_dict(self) -> dict[str, Any]:
        """The JSON object: plain dicts, lists, numbers and None."""
        written_by = {"loadkit-llm": version("loadkit-llm")}
        return {"schema": SCHEMA, "versions": written_by, **msgspec.to_builtins(self)}
