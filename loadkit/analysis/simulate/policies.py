"""Eviction policies on a log: hits by cause at one capacity, by direct simulation.

Policies (`score`: lowest is evicted first, only leaves are, ties go by recency):

- lru: least recently used. Equals the exact pass.
- lfu: uses + clock, where the clock is the score of the last victim at the block's last use. This
  aging (LFU with dynamic aging, Arlitt et al. 1999) keeps yesterday's favourites from staying.
- lfu-plain: uses alone, without aging.
- slru: segmented LRU (Karedla et al. 1994): a block used again while resident is protected; at most
  80% of the cache is, the oldest protected blocks fall back to the probation segment.
- gdsf: uses x cost + clock (Cherkasova 1998), all blocks of one size. The cost of computing a block
  grows with its depth, since attention reads all tokens before it.
- diversity: distinct prompts x index + clock. A replayed prompt counts once however often it is
  sent; the index is the share of new prompts among the last DIVERSITY_WINDOW_REQUESTS arrivals, so
  in a stream of replays recency decides.

A request counts each block once, replies when they complete. Counts are lost on eviction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadkit.analysis.events import Events, events_of
from loadkit.analysis.per_request import PerRequest, per_request_from
from loadkit.analysis.reuse import Reuse
from loadkit.analysis.simulate.kernel import (
    DIVERSITY,
    GDSF,
    LFU,
    LFU_PLAIN,
    LRU,
    NUM_COUNTERS,
    SLRU,
    serve,
)
from loadkit.analysis.simulate.state import BLOCK, QUEUED, Cache, Log, Rule
from loadkit.analysis.weighted import NEVER
from loadkit.core.errors import CannotMeasure, InputError
from loadkit.core.trace import FloatArray, IntArray, Trace

POLICIES = {
    "lru": LRU,
    "lfu": LFU,
    "lfu-plain": LFU_PLAIN,
    "slru": SLRU,
    "gdsf": GDSF,
    "diversity": DIVERSITY,
}
# The usual share of the protected segment, e.g. in Caffeine's window TinyLFU.
PROTECTED_SHARE = 0.8
# The reference server's (reference_server.diversity_index); tests/fidelity holds them equal.
DIVERSITY_WINDOW_REQUESTS = 10_000
# Context length at which attention costs as much as all else: parameters / (2 x width x layers) of
# Llama-3-8B, 8.03e9 / (2 x 4096 x 32). Other 7-8B models lie within a factor of two.
ATTENTION_EQUALS_REST_TOKENS = 30_600


@dataclass(frozen=True, slots=True)
class Simulation:
    """One simulated cache over a log. capacity_blocks None is infinite, ttl_s None is no expiry."""

    policy: str
    capacity_blocks: int | None
    ttl_s: float | None
    refresh: bool
    requests: PerRequest


def simulate(
    reuse: Reuse,
    policy: str = "lru",
    capacity_blocks: int | None = None,
    *,
    ttl_s: float | None = None,
    refresh: bool = False,
    diversity_window: int = DIVERSITY_WINDOW_REQUESTS,
) -> Simulation:
    """Serve the log once from a cache of that size.

    ttl_s: entries older than that are gone; the age counts from when the block was computed, or
    with `refresh` from its last use. A TTL needs LRU and a log with timestamps (InputError,
    CannotMeasure). Blocks behind the first miss are computed anew, which restarts their age.
    diversity_window: requests, at least 1, that the diversity policy's index looks back on.
    """
    rule = _rule(policy, capacity_blocks, ttl_s, refresh)
    trace = reuse.trace
    if ttl_s is not None and trace.arrival_s is None:
        raise CannotMeasure("a TTL needs timestamps, and the log has none")
    events = events_of(trace)
    log = _log(reuse, events, diversity_window)
    hit_blocks = serve(log, rule, _empty_cache(log, trace))
    return Simulation(policy, capacity_blocks, ttl_s, refresh, requests_of(reuse, hit_blocks))


def requests_of(reuse: Reuse, hit_blocks: IntArray) -> PerRequest:
    """Causes of simulated hits: what an infinite cache had and this one lacked is miss_capacity."""
    return per_request_from(reuse, np.maximum(reuse.hit_blocks(None), hit_blocks), hit_blocks)


def _rule(policy: str, capacity_blocks: int | None, ttl_s: float | None, refresh: bool) -> Rule:
    if policy not in POLICIES:
        raise InputError(
            f"unknown policy {policy!r}", where="--policy", remedy=f"one of {', '.join(POLICIES)}"
        )
    if ttl_s is not None and policy != "lru":
        raise InputError(
            f"a TTL with {policy} is not simulated", where="--ttl", remedy="use --policy lru"
        )
    if ttl_s is not None and not ttl_s > 0:
        raise InputError(f"a TTL of {ttl_s} s is not above 0", where="--ttl")
    capacity = NEVER if capacity_blocks is None else capacity_blocks
    return Rule(
        policy=POLICIES[policy],
        capacity=capacity,
        protected=int(PROTECTED_SHARE * capacity),
        ttl_s=float("inf") if ttl_s is None else float(ttl_s),
        refresh=refresh,
    )


def _log(reuse: Reuse, events: Events, diversity_window: int) -> Log:
    trace = reuse.trace
    longest = max(
        int(np.diff(trace.block_ptr).max(initial=0)),
        int(np.diff(events.resident_ptr).max(initial=0)),
    )
    depth = np.arange(longest, dtype=np.float64)
    return Log(
        ptr=trace.block_ptr,
        ids=trace.block_ids,
        kept_ptr=events.resident_ptr,
        kept_ids=events.resident_ids,
        partial_page=events.partial_page,
        event_request=events.request,
        event_completes=events.completes,
        event_time_s=_times(trace, events),
        event_diversity=_diversity(reuse, events, diversity_window),
        replay=reuse.replay,
        max_hit_blocks=reuse.max_hit_blocks,
        block_cost=1 + depth * trace.block_size / ATTENTION_EQUALS_REST_TOKENS,
    )


def _diversity(reuse: Reuse, events: Events, window: int) -> FloatArray:
    """(e,) share of new prompts among the last `window` arrivals, the event's own among them."""
    arrived = np.cumsum(~events.completes)
    new = np.concatenate([[0], np.cumsum(reuse.replay[events.request[~events.completes]] == 0)])
    looked_at = np.minimum(arrived, window)
    index: FloatArray = (new[arrived] - new[arrived - looked_at]) / np.maximum(looked_at, 1)
    return index


def _times(trace: Trace, events: Events) -> FloatArray:
    if trace.arrival_s is None:
        return np.zeros(len(events.request))
    completed = trace.arrival_s if trace.completed_s is None else trace.completed_s
    return np.where(
        events.completes, completed[events.request], trace.arrival_s[events.request]
    ).astype(np.float64)


def _empty_cache(log: Log, trace: Trace) -> Cache:
    size = trace.num_ids + trace.num_requests
    touches = len(log.ids) + len(log.kept_ids) + trace.num_requests
    blocks = np.zeros(size, BLOCK)
    blocks["parent"] = blocks["place"] = -1
    return Cache(
        blocks=blocks,
        heap=np.zeros(size, np.int64),
        queue=np.zeros(touches, QUEUED),
        counters=np.zeros(NUM_COUNTERS, np.int64),
        clock=np.zeros(1),
    )
