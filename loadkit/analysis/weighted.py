"""Counting the hits of the one pass: by request, and by cause, capacity and time to live.

A request that hits h leading blocks has min(h * block size, prompt tokens) hit tokens
(`analysis.engines.hit_tokens`): an id of the partial last block stands for the tokens that the
prompt has left, never for a whole block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadkit.analysis.nodes import KindArray, NodeStream
from loadkit.analysis.stack import Positions, stack_positions
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
    hit_tokens: IntArray  # (t, c, 4)
    ever_tokens: int  # hits of an infinite cache where nothing expires
    prompt_tokens: int
    new_prompt_tokens: int  # of requests that are no replay

    def split(self, capacity: int, ttl: int = 0) -> Split:
        """The split at the capacity-th capacity and ttl-th TTL. miss_capacity: evicted or expired."""
        own, shared, same, cross = (int(tokens) for tokens in self.hit_tokens[ttl, capacity])
        evicted = self.ever_tokens - own - shared - same - cross
        return Split(self.prompt_tokens, same, cross, own, shared, evicted)

    def hit_rates(self, ttl: int = 0) -> FloatArray:
        """(c,) token-weighted; 0 tokens give nan, which the caller must not let out."""
        return self._share(self.hit_tokens[ttl].sum(axis=1), self.prompt_tokens)

    def organic_rates(self, ttl: int = 0) -> FloatArray:
        """(c,) genuine hit tokens / prompt tokens of requests that are no replay."""
        return self._share(self.hit_tokens[ttl, :, :2].sum(axis=1), self.new_prompt_tokens)

    def organic_rate(self, capacity: int, ttl: int = 0) -> float | None:
        """One of organic_rates; None if every request is a replay."""
        return float(self.organic_rates(ttl)[capacity]) if self.new_prompt_tokens else None

    def _share(self, hits: IntArray, tokens: int) -> FloatArray:
        rates: FloatArray = hits / (tokens if tokens else np.nan)
        return rates

    def __add__(self, other: WeightedHits) -> WeightedHits:
        """Hits of two sets of requests together, such as the replicas of a fleet."""
        return WeightedHits(
            self.block_size,
            self.hit_tokens + other.hit_tokens,
            self.ever_tokens + other.ever_tokens,
            self.prompt_tokens + other.prompt_tokens,
            self.new_prompt_tokens + other.new_prompt_tokens,
        )


def weighted_hits(
    stream: NodeStream,
    capacities_blocks: Sequence[int | None],
    ttls_s: Sequence[float | None] = (None,),
    counted: BoolArray | None = None,
    positions: Positions | None = None,
) -> WeightedHits:
    """Run the pass and count. None stands for an infinite capacity and for no expiry.

    The order of capacities and TTLs is kept. `counted` (n,) limits what is counted, not what is
    touched: the cache is warmed by all. positions: of a pass already made, with idle times if a TTL
    is finite. InputError for a finite TTL on a log without times.
    """
    sizes = [NEVER if c is None else min(c, NEVER) for c in capacities_blocks]
    capacities = np.array([*sizes, NEVER])
    ttls = np.array([np.inf if t is None else t for t in ttls_s] + [np.inf])
    counts = np.ones(stream.num_requests, np.bool_) if counted is None else counted
    if positions is None:
        positions = stack_positions(stream, with_idle=bool(np.isfinite(ttls).any()))
    found = _sorted_hits(stream, positions, np.unique(capacities), np.unique(ttls), counts)
    at = np.searchsorted(np.unique(capacities), capacities)
    under = np.searchsorted(np.unique(ttls), ttls)
    tokens, new = stream.requests.prompt_tokens[counts], stream.requests.replay[counts] == 0
    return WeightedHits(
        block_size=stream.block_size,
        hit_tokens=found[under[:-1]][:, at[:-1]],
        ever_tokens=int(found[-1, -1].sum()),
        prompt_tokens=int(tokens.sum()),
        new_prompt_tokens=int(tokens[new].sum()),
    )


def leading_blocks(
    stream: NodeStream, positions: Positions, capacity_blocks: int | None
) -> IntArray:
    """(n,) blocks of each prompt that are in a cache of that size, without any engine's rule."""
    return _leading_blocks(
        stream.event_ptr,
        stream.nodes,
        stream.weight,
        stream.event_request,
        stream.is_arrival,
        positions.newer,
        NEVER if capacity_blocks is None else min(capacity_blocks, NEVER),
        np.zeros(stream.num_requests, np.int64),
    )


def _sorted_hits(
    stream: NodeStream,
    positions: Positions,
    capacities: IntArray,
    ttls: FloatArray,
    counted: BoolArray,
) -> IntArray:
    requests = stream.requests
    shape = (len(ttls), len(capacities), NUM_CAUSES)
    inside, whole = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    _count_all(
        stream.event_ptr,
        stream.nodes,
        stream.weight,
        stream.event_request,
        stream.is_arrival & counted[stream.event_request],
        positions.newer,
        np.zeros(0) if positions.idle_s is None else positions.idle_s,
        stream.block_size,
        requests.max_hit_blocks,
        requests.max_hit_blocks * stream.block_size - requests.max_hit_tokens,
        requests.own_blocks,
        requests.replay,
        capacities,
        ttls,
        inside,
        whole,
    )
    hits: IntArray = np.cumsum(inside + np.cumsum(whole, axis=1), axis=0)
    return hits


@compiled
def _leading_blocks(
    ptr: IntArray,
    nodes: IntArray,
    weight: IntArray,
    event_request: IntArray,
    is_arrival: BoolArray,
    newer: IntArray,
    capacity: int,
    found: IntArray,
) -> IntArray:
    for event in range(len(event_request)):
        if not is_arrival[event]:
            continue
        row = event_request[event]
        for touch in range(ptr[event], ptr[event + 1]):
            if newer[touch] < 0:
                break
            found[row] += max(0, min(weight[nodes[touch]], capacity - newer[touch]))
    return found


@compiled
def _count_all(
    ptr: IntArray,
    nodes: IntArray,
    weight: IntArray,
    event_request: IntArray,
    counts: BoolArray,
    newer: IntArray,
    idle_s: FloatArray,
    block_size: int,
    max_hit: IntArray,
    short: IntArray,
    own: IntArray,
    replay: KindArray,
    capacities: IntArray,
    ttls: FloatArray,
    inside: IntArray,
    whole: IntArray,
) -> None:
    """Count every chain's hits, head to tail, up to the first unseen node or the engine's limit.

    `short` (n,): tokens that the last block which may hit has less than a block. Of a node's blocks
    clip(C - newer, 0, blocks) hit at every C: the part of that ramp goes to `inside`, its end once to
    `whole`, which is summed up over capacities at the end. One loop without calls: handing arrays on
    would take most of the time.
    """
    under = 0
    for event in range(len(event_request)):
        if not counts[event]:
            continue
        row = event_request[event]
        depth = 0
        for touch in range(ptr[event], ptr[event + 1]):
            if newer[touch] < 0 or depth >= max_hit[row]:
                break
            allowed = min(weight[nodes[touch]], max_hit[row] - depth)
            if len(idle_s):
                under = 0
                while ttls[under] < idle_s[touch]:  # the last one is infinite
                    under += 1
            # The session's own blocks first, then what others put there; a replay is one part.
            mine = min(max(own[row] - depth, 0), allowed) if replay[row] == 0 else 0
            above = newer[touch]
            for part in range(2):
                blocks = mine if part == 0 else allowed - mine
                if blocks == 0:
                    continue
                cause = part + replay[row]
                low, high = 0, len(capacities)
                while low < high:  # to the first capacity that one block fits into
                    middle = (low + high) >> 1
                    if capacities[middle] > above:
                        high = middle
                    else:
                        low = middle + 1
                above += blocks
                while low < len(capacities) and capacities[low] < above:
                    inside[under, low, cause] += (capacities[low] - above + blocks) * block_size
                    low += 1
                if low < len(capacities):
                    is_last = above - newer[touch] == allowed and depth + allowed == max_hit[row]
                    missing = short[row] if is_last else 0
                    whole[under, low, cause] += blocks * block_size - missing
            depth += weight[nodes[touch]]
