"""Replicas: who serves what, and what that costs."""

from __future__ import annotations

import numpy as np
import pytest
from worlds import make_world

from loadkit.analysis.nodes import NodeStream, node_stream
from loadkit.analysis.weighted import weighted_hits
from loadkit.forecast.fleet import Fleet, assign, fleet_hits
from loadkit.traces import TokenRequest, token_trace


def world() -> NodeStream:
    return node_stream(make_world("flash_crowd", 2, 0.1))


def test_a_session_stays_with_its_replica_when_routing_is_sticky() -> None:
    stream = world()
    replica = assign(stream, Fleet(4, "sticky"), 0)
    pairs = np.unique(np.stack([stream.requests.session, replica]), axis=1)
    assert len(np.unique(pairs[0])) == pairs.shape[1]
    assert set(replica) == {0, 1, 2, 3}


def test_replicas_together_count_every_token_once() -> None:
    stream = world()
    for routing in ("pooled", "sticky", "random", "prefix-aware"):
        hits = fleet_hits(stream, [1000, None], Fleet(3, routing), 0)
        assert hits.prompt_tokens == stream.requests.prompt_tokens.sum()
        split = hits.split(0)
        assert split.hit <= hits.split(1).hit
        assert split.miss_compulsory >= 0


def test_what_only_another_replica_has_counts_as_missed_by_capacity() -> None:
    # The same prompt twice, on two replicas that each see it once (seed 1 sends them apart).
    prompts = [TokenRequest([1, 2, 3], session=row, arrival_s=float(row)) for row in range(2)]
    stream = node_stream(token_trace(prompts, 2))
    seed = next(s for s in range(20) if len(set(assign(stream, Fleet(2, "random"), s))) == 2)
    split = fleet_hits(stream, [None], Fleet(2, "random"), seed).split(0)
    assert (split.hit, split.miss_capacity, split.miss_compulsory) == (0, 2, 4)


def test_prefix_aware_routing_is_near_one_pooled_cache_and_random_is_not() -> None:
    stream = world()
    size = stream.distinct_blocks // 3
    pooled = weighted_hits(stream, [size]).hit_rates()[0]
    aware = fleet_hits(stream, [size], Fleet(4, "prefix-aware", None, size), 0).hit_rates()[0]
    random = fleet_hits(stream, [size], Fleet(4, "random"), 0).hit_rates()[0]
    assert aware == pytest.approx(pooled, abs=0.05)
    assert random < aware - 0.05


def test_sixteen_replicas_all_count_as_holders_of_a_prompt_that_all_share() -> None:
    # An index that remembers eight of them loses 6.7 points here.
    stream = node_stream(make_world("library", 2, 0.1))
    size = stream.distinct_blocks
    pooled = weighted_hits(stream, [size]).hit_rates()[0]
    aware = fleet_hits(stream, [size], Fleet(16, "prefix-aware", None, size), 0).hit_rates()[0]
    assert pooled - aware < 0.03


def test_prefix_aware_routing_does_not_send_all_to_one_replica() -> None:
    replica = assign(world(), Fleet(4, "prefix-aware", None, 2000), 0)
    assert np.bincount(replica, minlength=4).min() > len(replica) / 20
