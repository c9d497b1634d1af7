"""`analyze`: the whole answer of `loadkit analyze`, as numbers and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from loadkit.analysis.audit import AppendOnly, append_only
from loadkit.analysis.curve import CurvePoint, HitCurve, hit_curve
from loadkit.analysis.diversity import Diversity, diversity
from loadkit.analysis.kept import SHARED_POOL
from loadkit.analysis.per_request import PerRequest, per_request_of
from loadkit.analysis.reuse import reuse_of
from loadkit.analysis.simulate.engine_pools import Placement, place, with_pools
from loadkit.core.errors import InputError
from loadkit.core.split import CAUSES, check_shares
from loadkit.core.trace import Trace

SCHEMA = "loadkit.analysis/1"


class InfiniteCache(msgspec.Struct, frozen=True):
    """Rates of an infinite cache, of all prompt tokens; None for a log without tokens.

    organic_hit_rate is of the tokens of requests that are no replay. block_hit_rate counts prompt
    blocks as given, without engine rule and replies: 1 - unique / total. per_request_mean_hit_rate
    gives every request the same weight.
    """

    hit_rate: float | None
    replay_same_session: float | None
    replay_cross_session: float | None
    continuation: float | None
    shared: float | None
    miss: float | None
    organic_hit_rate: float | None
    block_hit_rate: float | None
    per_request_mean_hit_rate: float | None

    def __post_init__(self) -> None:
        check_shares("the infinite cache", msgspec.structs.asdict(self))


class Analysis(msgspec.Struct, frozen=True):
    """What a log's own prompts make reusable, split by cause, at an infinite and at finite caches.

    All rates are token-weighted shares of prompt tokens unless named otherwise, and hold for this
    block size only. placement: how the finite caches that were asked for were filled, and thus what
    their points of the curve say; None where none was asked for, or the rule has no pool.
    """

    requests: int
    sessions: int
    sessions_inferred: bool
    prompt_tokens: int
    block_size: int
    blocks: int
    unique_blocks: int
    infinite: InfiniteCache
    curve: tuple[CurvePoint, ...]
    append_only: AppendOnly
    diversity: Diversity
    warnings: tuple[str, ...]
    placement: Placement | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON object `loadkit.analysis/1`: plain dicts, lists, numbers and None."""
        return {"schema": SCHEMA, **msgspec.to_builtins(self)}


def analyze(
    trace: Trace,
    capacities_blocks: Sequence[int | None] = (),
    engine: str = "vllm",
    show_text: bool = False,
    latency_s: float | None = None,
    prefill_tokens_per_s: float | None = None,
) -> Analysis:
    """Analyze a log exactly. Without capacities the curve has points up to the log's footprint.

    capacities_blocks are kept in the order given; None stands for an infinite cache. `engine`
    names the rule for fully cached prompts (InputError if unknown). With `show_text` examples quote
    a few words of a text log's prompts; without it they give positions and lengths only. Finite
    capacities that were asked for are served from the engine's pool where the log has times and
    latencies; `latency_s` stands for those of all requests (see `simulate.engine_pools.place`).
    """
    reuse = reuse_of(trace, engine)
    curve, requests = hit_curve(reuse), per_request_of(reuse, None)
    capacities = list(capacities_blocks) or curve.default_capacities()
    points = curve.points(capacities)
    placement = None
    if finite := [capacity for capacity in capacities_blocks if capacity is not None]:
        placement, served = place(reuse, engine, finite, latency_s, prefill_tokens_per_s)
        points = with_pools(points, finite, served)
    elif latency_s is not None or prefill_tokens_per_s is not None:
        raise InputError(
            "latencies matter to a finite cache", where="--latency", remedy="add --capacity SIZE"
        )
    return Analysis(
        requests=trace.num_requests,
        sessions=trace.num_sessions,
        sessions_inferred=trace.sessions_inferred,
        prompt_tokens=int(trace.prompt_tokens.sum()),
        block_size=trace.block_size,
        blocks=trace.num_blocks,
        unique_blocks=trace.num_unique_blocks,
        infinite=_infinite(requests, curve),
        curve=tuple(points),
        append_only=append_only(reuse, requests.reusable_tokens, show_text),
        diversity=diversity(reuse, show_text),
        warnings=(*trace.warnings, *([SHARED_POOL] if trace.kept_blocks else ())),
        placement=placement,
    )


def _infinite(requests: PerRequest, curve: HitCurve) -> InfiniteCache:
    split = curve.split(None)
    return InfiniteCache(
        hit_rate=split.rate("hit"),
        **{cause: split.rate(cause) for cause in CAUSES},
        organic_hit_rate=requests.organic_hit_rate(),
        block_hit_rate=curve.block_hit_rate(None),
        per_request_mean_hit_rate=_mean_hit_rate(requests),
    )


def _mean_hit_rate(requests: PerRequest) -> float | None:
    some = requests.prompt_tokens > 0
    if not some.any():
        return None
    return float(np.mean(requests.reusable_tokens[some] / requests.prompt_tokens[some]))
