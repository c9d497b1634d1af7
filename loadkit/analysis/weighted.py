"""The exact pass over weighted nodes: every capacity and every refresh-on-use TTL at once.

Requests touch their chain tail first, head last (see `analysis.stack`), so the blocks of a node lie
one after another in the LRU stack, its head nearest to the top. If `newer` blocks are more recent
than the node, its j-th block has position newer + j, and of its w blocks clip(C - newer, 0, w) hit
in a cache of C. Expiry that is refreshed on use keeps LRU a stack algorithm: a block hits if its
position is at most C and its age at most the TTL. (A TTL counted from insertion is not: simulate.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadkit.analysis.nodes import KindArray, NodeStream, times_of
from loadkit.core.jit import compiled
from loadkit.core.split import Split
from loadkit.core.trace import BoolArray, FloatArray, IntArray

NEVER = np.iinfo(np.int64).max // 4
NUM_CAUSES = 4  # continuation, shared, replay of the same session, replay of another one


@dataclass(frozen=True, slots=True)
class WeightedHits:
    """Hits of all counted requests, by TTL, capacity and cause; c capacities, t TTLs as asked for.

    Causes: 0 continuation, 1 shared, 2 replay_same_session, 3 replay_cross_session.
    """

    block_size: int
    hit_blocks: IntArray  # (t, c, 4)
    ever_blocks: int  # hits of an infinite cache where nothing expires
    prompt_tokens: int
    new_prompt_tokens: int  # of requests that are no replay

    def split(self, capacity: int, ttl: int = 0) -> Split:
        """The split at the capacity-th capacity and ttl-th TTL. miss_capacity: evicted or expired."""
        own, shared, same, cross = (
            int(blocks) * self.block_size for blocks in self.hit_blocks[ttl, capacity]
        )
        evicted = self.ever_blocks * self.block_size - own - shared - same - cross
        return Split(self.prompt_tokens, same, cross, own, shared, evicted)

    def hit_rates(self, ttl: int = 0) -> FloatArray:
        """(c,) token-weighted; 0 tokens give nan, which the caller must not let out."""
        return self._share(self.hit_blocks[ttl].sum(axis=1), self.prompt_tokens)

    def organic_rates(self, ttl: int = 0) -> FloatArray:
        """(c,) genuine hit tokens / prompt tokens of requests that are no replay."""
        return self._share(self.hit_blocks[ttl, :, :2].sum(axis=1), self.new_prompt_tokens)

    def organic_rate(self, capacity: int, ttl: int = 0) -> float | None:
        """One of organic_rates; None if every request is a replay."""
        return float(self.organic_rates(ttl)[capacity]) if self.new_prompt_tokens else None

    def _share(self, blocks: IntArray, tokens: int) -> FloatArray:
        rates: FloatArray = blocks * self.block_size / (tokens if tokens else np.nan)
        return rates

    def __add__(self, other: WeightedHits) -> WeightedHits:
        """Hits of two sets of requests together, such as the replicas of a fleet."""
        return WeightedHits(
            self.block_size,
            self.hit_blocks + other.hit_blocks,
            self.ever_blocks + other.ever_blocks,
            self.prompt_tokens + other.prompt_tokens,
            self.new_prompt_tokens + other.new_prompt_tokens,
        )


def weighted_hits(
    stream: NodeStream,
    capacities_blocks: Sequence[int | None],
    ttls_s: Sequence[float | None] = (None,),
    counted: BoolArray | None = None,
) -> WeightedHits:
    """Run the pass. None stands for an infinite capacity and for no expiry; any order is kept.

    `counted` (n,) limits what is counted, not what is touched: the cache is warmed by all.
    InputError for a finite TTL on a log without times.
    """
    sizes = [NEVER if c is None else min(c, NEVER) for c in capacities_blocks]
    capacities = np.array([*sizes, NEVER])
    ttls = np.array([np.inf if t is None else t for t in ttls_s] + [np.inf])
    counts = np.ones(stream.num_requests, np.bool_) if counted is None else counted
    sorted_hits = _sorted_hits(stream, np.unique(capacities), np.unique(ttls), counts)
    at = np.searchsorted(np.unique(capacities), capacities)
    under = np.searchsorted(np.unique(ttls), ttls)
    tokens, new = stream.requests.prompt_tokens[counts], stream.requests.replay[counts] == 0
    return WeightedHits(
        block_size=stream.block_size,
        hit_blocks=sorted_hits[under[:-1]][:, at[:-1]],
        ever_blocks=int(sorted_hits[-1, -1].sum()),
        prompt_tokens=int(tokens.sum()),
        new_prompt_tokens=int(tokens[new].sum()),
    )


def _sorted_hits(
    stream: NodeStream, capacities: IntArray, ttls: FloatArray, counted: BoolArray
) -> IntArray:
    if np.isfinite(ttls).any():
        time = times_of(stream)
    else:
        time = np.zeros(len(stream.event_request))
    touches = len(stream.nodes)
    shape = (len(ttls), len(capacities), NUM_CAUSES)
    inside, whole = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    _pass(
        stream.event_ptr,
        stream.nodes,
        stream.weight,
        stream.event_request,
        stream.is_arrival & counted[stream.event_request],
        time,
        stream.requests.max_hit_blocks,
        stream.requests.own_blocks,
        stream.requests.replay,
        capacities,
        ttls,
        np.zeros(stream.num_nodes, np.int64),
        np.zeros(stream.num_nodes),
        np.zeros(touches + _BUCKET + 1, np.int64),
        np.zeros(touches // _BUCKET + 3, np.int64),
        inside,
        whole,
    )
    hits: IntArray = np.cumsum(inside + np.cumsum(whole, axis=1), axis=0)
    return hits


_BUCKET = 64
_SHIFT = 6


@compiled
def _pass(
    ptr: IntArray,
    nodes: IntArray,
    weight: IntArray,
    event_request: IntArray,
    counts: BoolArray,
    time: FloatArray,
    max_hit: IntArray,
    own: IntArray,
    replay: KindArray,
    capacities: IntArray,
    ttls: FloatArray,
    slot_of: IntArray,
    touched_at: FloatArray,
    live: IntArray,
    tree: IntArray,
    inside: IntArray,
    whole: IntArray,
) -> None:
    clock, live_weight = 0, 0
    for event in range(len(event_request)):
        chain = nodes[ptr[event] : ptr[event + 1]]
        now = time[event]
        if counts[event]:
            row = event_request[event]
            _look_up(
                chain, weight, slot_of, touched_at, live, tree, live_weight, now,
                max_hit[row], own[row], replay[row], capacities, ttls, inside, whole,
            )  # fmt: skip
        live_weight += _touch(chain, weight, slot_of, live, tree, clock)
        for k in range(len(chain)):
            touched_at[chain[k]] = now
        clock += len(chain)


@compiled
def _look_up(
    chain: IntArray,
    weight: IntArray,
    slot_of: IntArray,
    touched_at: FloatArray,
    live: IntArray,
    tree: IntArray,
    live_weight: int,
    now: float,
    max_hit: int,
    own: int,
    replay: int,
    capacities: IntArray,
    ttls: FloatArray,
    inside: IntArray,
    whole: IntArray,
) -> None:
    """Count the chain's hits, head to tail, up to the first unseen node or the engine's limit."""
    depth, newer, previous_slot = 0, 0, -1
    for k in range(len(chain)):
        node = chain[k]
        slot = slot_of[node]
        if slot == 0 or depth >= max_hit:
            return
        if slot == previous_slot - 1:
            newer += weight[chain[k - 1]]
        else:
            newer = live_weight - _live_through(slot, live, tree)
        previous_slot = slot
        allowed = min(weight[node], max_hit - depth)
        under = np.searchsorted(ttls, now - touched_at[node])
        if replay > 0:
            _count(
                newer,
                allowed,
                capacities,
                inside[under, :, 1 + replay],
                whole[under, :, 1 + replay],
            )
        else:
            mine = min(max(own - depth, 0), allowed)
            _count(newer, mine, capacities, inside[under, :, 0], whole[under, :, 0])
            _count(
                newer + mine, allowed - mine, capacities, inside[under, :, 1], whole[under, :, 1]
            )
        depth += weight[node]


@compiled
def _count(
    newer: int, blocks: int, capacities: IntArray, inside: IntArray, whole: IntArray
) -> None:
    """Add clip(C - newer, 0, blocks) for every C: the part of the ramp to `inside`, its end once to
    `whole`, which is summed up over capacities at the end."""
    if blocks <= 0:
        return
    at = np.searchsorted(capacities, newer + 1)
    while at < len(capacities) and capacities[at] < newer + blocks:
        inside[at] += capacities[at] - newer
        at += 1
    if at < len(capacities):
        whole[at] += blocks


@compiled
def _touch(
    chain: IntArray,
    weight: IntArray,
    slot_of: IntArray,
    live: IntArray,
    tree: IntArray,
    clock: int,
) -> int:
    """Make the chain the most recent, tail first, in the slots after `clock`; weight of new nodes."""
    new_weight = 0
    old_bucket, removed = 0, 0
    bucket, added = 0, 0
    for k in range(len(chain) - 1, -1, -1):
        node = chain[k]
        slot = slot_of[node]
        if slot > 0:
            live[slot] = 0
            if slot >> _SHIFT != old_bucket:
                _add(tree, old_bucket, -removed)
                old_bucket, removed = slot >> _SHIFT, 0
            removed += weight[node]
        else:
            new_weight += weight[node]
        clock += 1
        live[clock] = weight[node]
        slot_of[node] = clock
        if clock >> _SHIFT != bucket:
            _add(tree, bucket, added)
            bucket, added = clock >> _SHIFT, 0
        added += weight[node]
    _add(tree, old_bucket, -removed)
    _add(tree, bucket, added)
    return new_weight


@compiled
def _add(tree: IntArray, bucket: int, amount: int) -> None:
    """Add to a bucket's live weight (Fenwick tree, entry i stands for bucket i - 1)."""
    if amount == 0:
        return
    i = bucket + 1
    while i < len(tree):
        tree[i] += amount
        i += i & -i


@compiled
def _live_through(slot: int, live: IntArray, tree: IntArray) -> int:
    """Live weight up to and with `slot`: whole buckets from the tree, the rest one by one."""
    bucket = slot >> _SHIFT
    total = 0
    i = bucket
    while i > 0:
        total += tree[i]
        i -= i & -i
    for other in range(bucket << _SHIFT, slot + 1):
        total += live[other]
    return total
