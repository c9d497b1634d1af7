"""The direct simulation, compiled: one loop over the log's events, one cache, a policy is a score.

Blocks form a forest (a chained id has one parent), and only leaves are evicted: blocks without a
resident child. A request first touches its chain, tail first; then room is made among the blocks it
does not use, as an engine does before it runs the request; only a chain longer than the cache
evicts its own tail. The leaf with the lowest (score, tick of the last touch) goes first. Scores
never fall while a block is idle, so a leaf sits in the heap once, at a known place.

All compiled functions that call each other stand in this file (see core.jit).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from loadkit.core.jit import compiled
from loadkit.core.trace import FloatArray, IntArray

ByteArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
KindArray = npt.NDArray[np.int8]

LRU, LFU, LFU_PLAIN, SLRU, GDSF, DIVERSITY = range(6)
_SIZE, _TICK, _HEAP, _PROTECTED, _HEAD, _END, _DISTINCT, _REQUESTS = range(8)
NUM_COUNTERS = 8


class Log(NamedTuple):
    """What is served; n requests, e events. See analysis.events for the columns of events."""

    ptr: IntArray  # (n + 1,) prompt chains
    ids: IntArray
    kept_ptr: IntArray  # (n + 1,) chains that completions leave
    kept_ids: IntArray
    partial_page: BoolArray  # (n,)
    event_request: IntArray  # (e,)
    event_completes: BoolArray  # (e,)
    event_time_s: FloatArray  # (e,) zeros where the log has no time
    replay: KindArray  # (n,) above 0: the whole prompt was sent before
    max_hit_blocks: IntArray  # (n,)
    block_cost: FloatArray  # (longest chain,) relative cost of computing the block at that depth


class Rule(NamedTuple):
    """How the cache behaves; ttl_s infinite for none."""

    policy: int
    capacity: int
    protected: int  # SLRU: most blocks of the protected segment
    ttl_s: float
    refresh: bool  # True: an entry's age counts from its last use, False: from its computation


class Cache(NamedTuple):
    """State per id, ids of unfinished pages behind those of blocks; `counters` holds the scalars."""

    parent: IntArray
    children: IntArray  # resident ones
    resident: ByteArray
    uses: IntArray
    last: IntArray  # tick of the last touch
    score: FloatArray
    stamp_s: FloatArray  # age counts from here
    pinned: ByteArray  # the event being served uses the block
    heap: IntArray  # idle leaves
    place: IntArray  # index in heap, -1 outside
    queue_id: IntArray  # touches in order, for SLRU's oldest protected block and for expiry
    queue_at: FloatArray
    counters: IntArray
    clock: FloatArray  # (1,) score of the last victim, never falling


@compiled
def serve(log: Log, rule: Rule, cache: Cache) -> IntArray:
    """Leading blocks hit (n,) by each request."""
    hit = np.zeros(len(log.ptr) - 1, np.int64)
    for event in range(len(log.event_request)):
        request, now = log.event_request[event], log.event_time_s[event]
        completes = log.event_completes[event]
        _expire(cache, rule, now)
        num_prompt = log.ptr[request + 1] - log.ptr[request]
        chain = log.ids[log.ptr[request] : log.ptr[request + 1]]
        page = -1
        if completes:
            chain = log.kept_ids[log.kept_ptr[request] : log.kept_ptr[request + 1]]
            if log.partial_page[request]:
                page = len(cache.parent) - len(hit) + request
                _touch_page(cache, rule, page, now)
        else:
            num_prompt = 0
            while hit[request] < len(chain) and cache.resident[chain[hit[request]]]:
                hit[request] += 1
            hit[request] = min(hit[request], log.max_hit_blocks[request])
            cache.counters[_REQUESTS] += 1
            cache.counters[_DISTINCT] += log.replay[request] == 0
        for k in range(len(chain) - 1, -1, -1):
            counted = k >= num_prompt  # a completion's prompt blocks were counted on arrival
            computed = counted if completes else k >= hit[request]
            _touch(cache, chain, k)
            _use(cache, rule, chain[k], counted, log.replay[request] == 0)
            _rate(cache, rule, chain[k], counted, log.block_cost[k])
            _stamp(cache, rule, chain[k], computed, now)
        if rule.policy == SLRU:
            _demote(cache, rule)
        _make_room(cache, rule, chain, page)
        _offer_used(cache, chain, page)
    return hit


# -- touching


@compiled
def _touch(cache: Cache, chain: IntArray, k: int) -> None:
    """Make the block resident, the most recent, and pinned."""
    block = chain[k]
    if cache.place[block] >= 0:
        _heap_remove(cache, block)
    cache.pinned[block] = 1
    cache.counters[_TICK] += 1
    cache.last[block] = cache.counters[_TICK]
    if cache.resident[block] == 0:
        cache.resident[block] = 1
        cache.uses[block] = 0
        cache.score[block] = -1.0
        cache.stamp_s[block] = -np.inf
        cache.counters[_SIZE] += 1
        cache.parent[block] = chain[k - 1] if k > 0 else -1
        if k > 0:
            cache.children[chain[k - 1]] += 1


@compiled
def _touch_page(cache: Cache, rule: Rule, page: int, now: float) -> None:
    """An unfinished page: it takes room, is nobody's parent, and no policy values it."""
    cache.pinned[page] = 1
    cache.resident[page] = 1
    cache.parent[page] = -1
    cache.counters[_TICK] += 1
    cache.counters[_SIZE] += 1
    cache.last[page] = cache.counters[_TICK]
    if rule.policy != SLRU:
        cache.score[page] = cache.clock[0]
    cache.stamp_s[page] = -np.inf
    _stamp(cache, rule, page, True, now)


@compiled
def _use(cache: Cache, rule: Rule, block: int, counted: bool, new_prompt: bool) -> None:
    """Count a request's use once; for Diversity only if no request before had the same prompt."""
    if counted and (rule.policy != DIVERSITY or new_prompt):
        cache.uses[block] += 1
    cache.uses[block] = max(cache.uses[block], 1)


@compiled
def _stamp(cache: Cache, rule: Rule, block: int, computed: bool, now: float) -> None:
    """Restart the age of a computed (or, with refresh, a used) entry."""
    if rule.ttl_s == np.inf:
        return
    if computed or rule.refresh or cache.stamp_s[block] == -np.inf:
        cache.stamp_s[block] = now
        _enqueue(cache, block, now)


# -- policies


@compiled
def _rate(cache: Cache, rule: Rule, block: int, counted: bool, cost: float) -> None:
    """Set a touched block's score. Higher stays longer; equal scores go by recency."""
    if rule.policy == LRU:
        cache.score[block] = 0.0
    elif rule.policy == SLRU:
        _rate_slru(cache, block, counted)
    elif rule.policy == LFU:
        cache.score[block] = cache.clock[0] + cache.uses[block]
    elif rule.policy == LFU_PLAIN:
        cache.score[block] = cache.uses[block]
    elif rule.policy == GDSF:
        cache.score[block] = cache.clock[0] + cache.uses[block] * cost
    else:
        index = cache.counters[_DISTINCT] / cache.counters[_REQUESTS]
        cache.score[block] = cache.clock[0] + index * cache.uses[block]


@compiled
def _rate_slru(cache: Cache, block: int, counted: bool) -> None:
    """0: probation, 1: protected. A block used while resident is protected, a new one is not."""
    if cache.score[block] == -1.0:
        cache.score[block] = 0.0
    elif counted and cache.score[block] == 0.0:
        cache.score[block] = 1.0
        cache.counters[_PROTECTED] += 1
    if cache.score[block] == 1.0:
        _enqueue(cache, block, float(cache.last[block]))


@compiled
def _demote(cache: Cache, rule: Rule) -> None:
    """Too many protected blocks: the oldest become the most recent of the probation segment."""
    while cache.counters[_PROTECTED] > rule.protected:
        block, tick = _dequeue(cache)
        current = cache.resident[block] and cache.score[block] == 1.0
        if not current or cache.last[block] != tick:
            continue
        cache.score[block] = 0.0
        cache.counters[_PROTECTED] -= 1
        cache.counters[_TICK] += 1
        cache.last[block] = cache.counters[_TICK]
        if cache.place[block] >= 0:
            _heap_remove(cache, block)
            _heap_push(cache, block)


@compiled
def _enqueue(cache: Cache, block: int, at: float) -> None:
    end = cache.counters[_END]
    cache.queue_id[end], cache.queue_at[end] = block, at
    cache.counters[_END] = end + 1


@compiled
def _dequeue(cache: Cache) -> tuple[int, float]:
    head = cache.counters[_HEAD]
    cache.counters[_HEAD] = head + 1
    return cache.queue_id[head], cache.queue_at[head]


# -- removing


@compiled
def _make_room(cache: Cache, rule: Rule, chain: IntArray, page: int) -> None:
    tail = len(chain)
    while cache.counters[_SIZE] > rule.capacity:
        if cache.counters[_HEAP] > 0:
            victim = cache.heap[0]
            _heap_remove(cache, victim)
            if rule.policy >= GDSF or rule.policy == LFU:
                cache.clock[0] = max(cache.clock[0], cache.score[victim])
            _remove(cache, rule, victim)
        elif page >= 0 and cache.resident[page]:
            _remove(cache, rule, page)
        else:
            tail -= 1
            if cache.resident[chain[tail]]:
                _remove(cache, rule, chain[tail])


@compiled
def _remove(cache: Cache, rule: Rule, block: int) -> None:
    """Forget a block that is not in the heap; its parent may become a leaf."""
    cache.resident[block] = 0
    cache.counters[_SIZE] -= 1
    if rule.policy == SLRU and cache.score[block] == 1.0:
        cache.counters[_PROTECTED] -= 1
    parent = cache.parent[block]
    if parent >= 0:
        cache.children[parent] -= 1
        _offer(cache, parent)


@compiled
def _expire(cache: Cache, rule: Rule, now: float) -> None:
    """Drop what is older than the TTL. Blocks below an expired one wait for their own end."""
    if rule.ttl_s == np.inf:
        return
    while cache.counters[_HEAD] < cache.counters[_END]:
        if now - cache.queue_at[cache.counters[_HEAD]] <= rule.ttl_s:
            return
        block, at = _dequeue(cache)
        if cache.resident[block] and cache.stamp_s[block] == at:
            if cache.place[block] >= 0:
                _heap_remove(cache, block)
            _remove(cache, rule, block)


@compiled
def _offer_used(cache: Cache, chain: IntArray, page: int) -> None:
    """The event is over: its blocks may be evicted again."""
    if page >= 0:
        cache.pinned[page] = 0
        _offer(cache, page)
    for block in chain:
        cache.pinned[block] = 0
        _offer(cache, block)


@compiled
def _offer(cache: Cache, block: int) -> None:
    """Into the heap, if it is a resident, idle leaf that is not there yet."""
    idle = cache.resident[block] and not cache.pinned[block]
    if idle and cache.children[block] == 0 and cache.place[block] < 0:
        _heap_push(cache, block)


# -- a binary heap of blocks that knows every block's place


@compiled
def _before(cache: Cache, one: int, other: int) -> bool:
    if cache.score[one] != cache.score[other]:
        return bool(cache.score[one] < cache.score[other])
    return bool(cache.last[one] < cache.last[other])


@compiled
def _heap_push(cache: Cache, block: int) -> None:
    place = cache.counters[_HEAP]
    cache.counters[_HEAP] = place + 1
    cache.heap[place] = block
    cache.place[block] = place
    _sift_up(cache, place)


@compiled
def _heap_remove(cache: Cache, block: int) -> None:
    place = cache.place[block]
    cache.counters[_HEAP] -= 1
    end = cache.counters[_HEAP]
    cache.place[block] = -1
    if place == end:
        return
    mover = cache.heap[end]
    cache.heap[place] = mover
    cache.place[mover] = place
    _sift_up(cache, place)
    _sift_down(cache, cache.place[mover])


@compiled
def _sift_up(cache: Cache, place: int) -> None:
    block = cache.heap[place]
    while place > 0:
        above = (place - 1) >> 1
        if not _before(cache, block, cache.heap[above]):
            break
        cache.heap[place] = cache.heap[above]
        cache.place[cache.heap[place]] = place
        place = above
    cache.heap[place] = block
    cache.place[block] = place


@compiled
def _sift_down(cache: Cache, place: int) -> None:
    block, end = cache.heap[place], cache.counters[_HEAP]
    while 2 * place + 1 < end:
        below = 2 * place + 1
        if below + 1 < end and _before(cache, cache.heap[below + 1], cache.heap[below]):
            below += 1
        if not _before(cache, cache.heap[below], block):
            break
        cache.heap[place] = cache.heap[below]
        cache.place[cache.heap[place]] = place
        place = below
    cache.heap[place] = block
    cache.place[block] = place
