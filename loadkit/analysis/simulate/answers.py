"""All that a user may ask a simulation, and its answers as numbers and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from loadkit.analysis.per_request import PerRequest
from loadkit.analysis.reuse import Reuse
from loadkit.analysis.simulate.policies import simulate
from loadkit.analysis.simulate.slots import DEFAULT_SIMILARITY, simulate_slots
from loadkit.analysis.simulate.tiers import TIER_NAMES, simulate_tiers
from loadkit.analysis.weighted import WeightedHits, weighted_hits
from loadkit.core.split import Split, check_shares
from loadkit.core.trace import Trace

# Without capacities the policies are compared at these shares of the log's distinct blocks.
DEFAULT_SHARES = (0.03, 0.1, 0.25)


class Asked(msgspec.Struct, frozen=True):
    """What to simulate. Capacities in blocks, None infinite; an empty tuple or None asks nothing.

    ttls_s count from an entry's last use, fixed_ttls_s from its computation; both at every capacity
    (infinite if none is given). latency_s: of each request in the slots, where the log has none.
    """

    capacities: tuple[int | None, ...] = ()
    policies: tuple[str, ...] = ()
    ttls_s: tuple[float, ...] = ()
    fixed_ttls_s: tuple[float, ...] = ()
    tiers: tuple[int, ...] = ()
    slots: int | None = None
    slot_similarity: float = DEFAULT_SIMILARITY
    latency_s: float | None = None


class Rates(msgspec.Struct, frozen=True):
    """Shares of all prompt tokens, as in the curve; organic_hit_rate of prompts that are no replay.

    None for a log without (such) tokens.
    """

    hit_rate: float | None
    replay_same_session: float | None
    replay_cross_session: float | None
    continuation: float | None
    shared: float | None
    miss_compulsory: float | None
    miss_capacity: float | None
    organic_hit_rate: float | None

    def __post_init__(self) -> None:
        check_shares("a simulated cache", msgspec.structs.asdict(self))


def rates_of(requests: PerRequest) -> Rates:
    """The rates of all requests together."""
    return _rates_from(requests.total(), requests.organic_hit_rate())


def _rates_from(split: Split, organic_hit_rate: float | None) -> Rates:
    parts = [
        name for name in Rates.__struct_fields__ if name not in ("hit_rate", "organic_hit_rate")
    ]
    return Rates(
        hit_rate=split.rate("hit"),
        **{part: split.rate(part) for part in parts},
        organic_hit_rate=organic_hit_rate,
    )


def answers(reuse: Reuse, asked: Asked) -> dict[str, list[dict[str, Any]]]:
    """JSON lists by kind: policies, ttl, tiers, slots; only the kinds asked for.

    miss_capacity holds what an infinite cache would have hit: evicted, expired, or overwritten in its
    slot.
    """
    kinds = {
        "policies": _policies(reuse, asked),
        "ttl": _ttls(reuse, asked),
        "tiers": _tiers(reuse, asked),
        "slots": _slots(reuse, asked),
    }
    listed = {kind: list(points) for kind, points in kinds.items()}
    return {kind: points for kind, points in listed.items() if points}


def default_capacities(trace: Trace) -> tuple[int, ...]:
    """DEFAULT_SHARES of the distinct blocks, at least one block each."""
    blocks = trace.num_unique_blocks
    return tuple(max(1, round(share * blocks)) for share in DEFAULT_SHARES)


def _policies(reuse: Reuse, asked: Asked) -> Iterator[dict[str, Any]]:
    for policy in asked.policies:
        for capacity in asked.capacities or default_capacities(reuse.trace):
            result = simulate(reuse, policy, capacity)
            yield {"policy": policy, **_capacity(reuse, capacity), **_rates(result.requests)}


def _ttls(reuse: Reuse, asked: Asked) -> Iterator[dict[str, Any]]:
    capacities = asked.capacities or (None,)
    known = _refreshed(reuse, capacities, asked.ttls_s)
    each = [(ttl, True) for ttl in asked.ttls_s] + [(ttl, False) for ttl in asked.fixed_ttls_s]
    for at, (ttl_s, refresh) in enumerate(each):
        for index, capacity in enumerate(capacities):
            if refresh and known is not None:
                split, organic = known.split(index, at), known.organic_rate(index, at)
                rates = msgspec.structs.asdict(_rates_from(split, organic))
            else:
                result = simulate(reuse, "lru", capacity, ttl_s=ttl_s, refresh=refresh)
                rates = _rates(result.requests)
            yield {
                "ttl_s": ttl_s,
                "refreshed_on_use": refresh,
                **_capacity(reuse, capacity),
                **rates,
            }


def _refreshed(
    reuse: Reuse, capacities: Sequence[int | None], ttls_s: Sequence[float]
) -> WeightedHits | None:
    """One pass for all capacities and all TTLs that use prolongs; None without times or TTLs."""
    if not ttls_s or reuse.trace.arrival_s is None:
        return None
    return weighted_hits(reuse.stream, capacities, ttls_s)


def _tiers(reuse: Reuse, asked: Asked) -> Iterator[dict[str, Any]]:
    """A line a tier with its share of the hits, then one for all together."""
    if not asked.tiers:
        return
    result = simulate_tiers(reuse, asked.tiers)
    tokens = result.tier_tokens.sum(axis=0)
    total = int(reuse.trace.prompt_tokens.sum())
    for name, capacity, hit in zip(TIER_NAMES, asked.tiers, tokens.tolist(), strict=False):
        yield {
            "tier": name,
            **_capacity(reuse, capacity),
            "hit_rate": hit / total if total else None,
        }
    yield {"tier": "all", **_capacity(reuse, sum(asked.tiers)), **_rates(result.requests)}


def _slots(reuse: Reuse, asked: Asked) -> Iterator[dict[str, Any]]:
    if asked.slots is not None:
        result = simulate_slots(
            reuse, asked.slots, asked.slot_similarity, latency_s=asked.latency_s
        )
        yield {
            "slots": asked.slots,
            "similarity": asked.slot_similarity,
            **_rates(result.requests),
        }


def _capacity(reuse: Reuse, capacity: int | None) -> dict[str, int | None]:
    tokens = None if capacity is None else capacity * reuse.trace.block_size
    return {"capacity_blocks": capacity, "capacity_tokens": tokens}


def _rates(requests: PerRequest) -> dict[str, float | None]:
    return msgspec.structs.asdict(rates_of(requests))
