"""A trace in front of N replicas: who serves which request, and what the caches then hit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from loadkit.analysis.nodes import NodeStream, select_requests
from loadkit.analysis.weighted import WeightedHits, weighted_hits
from loadkit.core.trace import IntArray
from loadkit.forecast.prefix_router import route_by_prefix

ROUTINGS = ("pooled", "sticky", "random", "prefix-aware")


@dataclass(frozen=True, slots=True)
class Fleet:
    """replicas with a cache each; capacities are of the whole fleet, each replica has its share.

    pooled is one cache of the whole capacity, however many replicas use it.
    """

    replicas: int = 1
    routing: str = "pooled"
    ttl_s: float | None = None
    routed_capacity: int | None = None  # what a prefix-aware router takes the fleet to hold

    @property
    def is_pooled(self) -> bool:
        return self.routing == "pooled" or self.replicas == 1


def fleet_hits(
    stream: NodeStream, capacities_blocks: Sequence[int | None], fleet: Fleet, seed: int
) -> WeightedHits:
    """Hits of all requests at capacities of the whole fleet (None: infinite).

    Requests are routed once, for the fleet's `routed_capacity`. A block that only another replica
    has counts as missed by capacity, since one cache of that room would have had it.
    """
    if fleet.is_pooled:
        return weighted_hits(stream, capacities_blocks, [fleet.ttl_s])
    replica = assign(stream, fleet, seed)
    shares = [None if c is None else max(1, c // fleet.replicas) for c in capacities_blocks]
    total: WeightedHits | None = None
    for index in range(fleet.replicas):
        part = weighted_hits(select_requests(stream, replica == index), shares, [fleet.ttl_s])
        total = part if total is None else total + part
    assert total is not None
    return replace(total, ever_tokens=weighted_hits(stream, [None]).ever_tokens)


def assign(stream: NodeStream, fleet: Fleet, seed: int) -> IntArray:
    """(n,) the replica of each request. sticky: by a hash of its session, all turns together."""
    random = np.random.default_rng([seed, 1])
    if fleet.routing == "sticky":
        sessions = int(stream.requests.session.max(initial=-1)) + 1
        by_session: IntArray = random.integers(fleet.replicas, size=sessions)
        return by_session[stream.requests.session]
    if fleet.routing == "random":
        return random.integers(fleet.replicas, size=stream.num_requests)
    return route_by_prefix(stream, fleet.replicas, fleet.routed_capacity, _work_rate(stream, fleet))


def _work_rate(stream: NodeStream, fleet: Fleet) -> float:
    """Blocks per second that must be computed if all replicas shared one cache."""
    hits = weighted_hits(stream, [fleet.routed_capacity], [fleet.ttl_s])
    missed = stream.requests.prompt_tokens.sum() - hits.hit_tokens.sum()
    time_s = stream.event_time_s
    length = 1.0 if time_s is None or len(time_s) < 2 else float(time_s[-1] - time_s[0])
    return float(missed) / stream.block_size / max(length, 1e-9)
