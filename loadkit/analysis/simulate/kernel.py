"""The direct simulation, compiled: one loop over the log's events, one cache, a policy is a score.

Blocks form a forest (a chained id has one parent), and only leaves are evicted: blocks without a
resident child. A request first touches its chain, tail first; then room is made among the blocks it
does not use, as an engine does before it runs the request; only a chain longer than the cache
evicts its own tail. The leaf with the lowest (score, tick of the last touch) goes first. Scores
never fall while a block is idle, so a leaf sits in the heap once, at a known place.

All compiled functions that call each other stand in this file (see core.jit).
"""

from __future__ import annotations

import numpy as np

from loadkit.analysis.simulate.state import Cache, Log, Rule
from loadkit.core.jit import compiled
from loadkit.core.trace import IntArray

LRU, LFU, LFU_PLAIN, SLRU, GDSF, DIVERSITY = range(6)
_SIZE, _TICK, _HEAP, _PROTECTED, _HEAD, _END = range(6)
NUM_COUNTERS = 6


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
                page = len(cache.blocks) - len(hit) + request
                _touch_page(cache, rule, page, now)
        else:
            num_prompt = 0
            while hit[request] < len(chain) and cache.blocks[chain[hit[request]]].resident:
                hit[request] += 1
            hit[request] = min(hit[request], log.max_hit_blocks[request])
        for k in range(len(chain) - 1, -1, -1):
            counted = k >= num_prompt  # a completion's prompt blocks were counted on arrival
            computed = counted if completes else k >= hit[request]
            _touch(cache, chain, k)
            _use(cache, rule, chain[k], counted, log.replay[request] == 0)
            _rate(cache, rule, chain[k], counted, log.block_cost[k], log.event_diversity[event])
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
    if cache.blocks[block].place >= 0:
        _heap_remove(cache, block)
    cache.blocks[block].pinned = 1
    cache.counters[_TICK] += 1
    cache.blocks[block].last = cache.counters[_TICK]
    if cache.blocks[block].resident == 0:
        cache.blocks[block].resident = 1
        cache.blocks[block].uses = 0
        cache.blocks[block].score = -1.0
        cache.blocks[block].stamp_s = -np.inf
        cache.counters[_SIZE] += 1
        cache.blocks[block].parent = chain[k - 1] if k > 0 else -1
        if k > 0:
            cache.blocks[chain[k - 1]].children += 1


@compiled
def _touch_page(cache: Cache, rule: Rule, page: int, now: float) -> None:
    """An unfinished page: it takes room, is nobody's parent, and no policy values it."""
    cache.blocks[page].pinned = 1
    cache.blocks[page].resident = 1
    cache.blocks[page].parent = -1
    cache.counters[_TICK] += 1
    cache.counters[_SIZE] += 1
    cache.blocks[page].last = cache.counters[_TICK]
    if rule.policy != SLRU:
        cache.blocks[page].score = cache.clock[0]
    cache.blocks[page].stamp_s = -np.inf
    _stamp(cache, rule, page, True, now)


@compiled
def _use(cache: Cache, rule: Rule, block: int, counted: bool, new_prompt: bool) -> None:
    """Count a request's use once; for Diversity only if no request before had the same prompt."""
    if counted and (rule.policy != DIVERSITY or new_prompt):
        cache.blocks[block].uses += 1
    cache.blocks[block].uses = max(cache.blocks[block].uses, 1)


@compiled
def _stamp(cache: Cache, rule: Rule, block: int, computed: bool, now: float) -> None:
    """Restart the age of a computed (or, with refresh, a used) entry."""
    if rule.ttl_s == np.inf:
        return
    if computed or rule.refresh or cache.blocks[block].stamp_s == -np.inf:
        cache.blocks[block].stamp_s = now
        _enqueue(cache, block, now)


# -- policies


@compiled
def _rate(
    cache: Cache, rule: Rule, block: int, counted: bool, cost: float, diversity: float
) -> None:
    """Set a touched block's score. Higher stays longer; equal scores go by recency."""
    if rule.policy == LRU:
        cache.blocks[block].score = 0.0
    elif rule.policy == SLRU:
        _rate_slru(cache, block, counted)
    elif rule.policy == LFU:
        cache.blocks[block].score = cache.clock[0] + cache.blocks[block].uses
    elif rule.policy == LFU_PLAIN:
        cache.blocks[block].score = cache.blocks[block].uses
    elif rule.policy == GDSF:
        cache.blocks[block].score = cache.clock[0] + cache.blocks[block].uses * cost
    else:
        cache.blocks[block].score = cache.clock[0] + diversity * cache.blocks[block].uses


@compiled
def _rate_slru(cache: Cache, block: int, counted: bool) -> None:
    """0: probation, 1: protected. A block used while resident is protected, a new one is not."""
    if cache.blocks[block].score == -1.0:
        cache.blocks[block].score = 0.0
    elif counted and cache.blocks[block].score == 0.0:
        cache.blocks[block].score = 1.0
        cache.counters[_PROTECTED] += 1
    if cache.blocks[block].score == 1.0:
        _enqueue(cache, block, float(cache.blocks[block].last))


@compiled
def _demote(cache: Cache, rule: Rule) -> None:
    """Too many protected blocks: the oldest become the most recent of the probation segment."""
    while cache.counters[_PROTECTED] > rule.protected:
        block, tick = _dequeue(cache)
        current = cache.blocks[block].resident and cache.blocks[block].score == 1.0
        if not current or cache.blocks[block].last != tick:
            continue
        cache.blocks[block].score = 0.0
        cache.counters[_PROTECTED] -= 1
        cache.counters[_TICK] += 1
        cache.blocks[block].last = cache.counters[_TICK]
        if cache.blocks[block].place >= 0:
            _heap_remove(cache, block)
            _heap_push(cache, block)


@compiled
def _enqueue(cache: Cache, block: int, at: float) -> None:
    end = cache.counters[_END]
    cache.queue[end].block = block
    cache.queue[end].at = at
    cache.counters[_END] = end + 1


@compiled
def _dequeue(cache: Cache) -> tuple[int, float]:
    head = cache.counters[_HEAD]
    cache.counters[_HEAD] = head + 1
    return cache.queue[head].block, cache.queue[head].at


# -- removing


@compiled
def _make_room(cache: Cache, rule: Rule, chain: IntArray, page: int) -> None:
    tail = len(chain)
    while cache.counters[_SIZE] > rule.capacity:
        if cache.counters[_HEAP] > 0:
            _evict_first(cache, rule)
        elif page >= 0 and cache.blocks[page].resident:
            _remove(cache, rule, page)
        else:
            tail -= 1
            if cache.blocks[chain[tail]].resident:
                _remove(cache, rule, chain[tail])


@compiled
def _evict_first(cache: Cache, rule: Rule) -> None:
    """Evict the top of the heap. Its parent, if that is now a leaf, mostly comes next: it takes the
    place at the top, which saves a way through the heap and back."""
    victim = cache.heap[0]
    if rule.policy >= GDSF or rule.policy == LFU:
        cache.clock[0] = max(cache.clock[0], cache.blocks[victim].score)
    parent = _forget(cache, rule, victim)
    if parent < 0:
        _heap_remove(cache, victim)
        return
    cache.blocks[victim].place = -1
    cache.heap[0] = parent
    cache.blocks[parent].place = 0
    _sift_down(cache, 0)


@compiled
def _remove(cache: Cache, rule: Rule, block: int) -> None:
    """Forget a block that is not in the heap; its parent may become a leaf."""
    parent = _forget(cache, rule, block)
    if parent >= 0:
        _heap_push(cache, parent)


@compiled
def _forget(cache: Cache, rule: Rule, block: int) -> int:
    """The block is gone. Returns its parent if that now belongs into the heap, else -1."""
    cache.blocks[block].resident = 0
    cache.counters[_SIZE] -= 1
    if rule.policy == SLRU and cache.blocks[block].score == 1.0:
        cache.counters[_PROTECTED] -= 1
    parent = cache.blocks[block].parent
    if parent < 0:
        return -1
    cache.blocks[parent].children -= 1
    return parent if _belongs_in_heap(cache, parent) else -1


@compiled
def _expire(cache: Cache, rule: Rule, now: float) -> None:
    """Drop what is older than the TTL. Blocks below an expired one wait for their own end."""
    if rule.ttl_s == np.inf:
        return
    while cache.counters[_HEAD] < cache.counters[_END]:
        if now - cache.queue[cache.counters[_HEAD]].at <= rule.ttl_s:
            return
        block, at = _dequeue(cache)
        if cache.blocks[block].resident and cache.blocks[block].stamp_s == at:
            if cache.blocks[block].place >= 0:
                _heap_remove(cache, block)
            _remove(cache, rule, block)


@compiled
def _offer_used(cache: Cache, chain: IntArray, page: int) -> None:
    """The event is over: its blocks may be evicted again."""
    if page >= 0:
        cache.blocks[page].pinned = 0
        _offer(cache, page)
    for block in chain:
        cache.blocks[block].pinned = 0
        _offer(cache, block)


@compiled
def _offer(cache: Cache, block: int) -> None:
    if _belongs_in_heap(cache, block):
        _heap_push(cache, block)


@compiled
def _belongs_in_heap(cache: Cache, block: int) -> bool:
    """A resident, idle leaf that is not there yet."""
    idle = cache.blocks[block].resident and not cache.blocks[block].pinned
    return bool(idle and cache.blocks[block].children == 0 and cache.blocks[block].place < 0)


# -- a binary heap of blocks that knows every block's place


@compiled
def _before(cache: Cache, one: int, other: int) -> bool:
    if cache.blocks[one].score != cache.blocks[other].score:
        return bool(cache.blocks[one].score < cache.blocks[other].score)
    return bool(cache.blocks[one].last < cache.blocks[other].last)


@compiled
def _heap_push(cache: Cache, block: int) -> None:
    place = cache.counters[_HEAP]
    cache.counters[_HEAP] = place + 1
    cache.heap[place] = block
    cache.blocks[block].place = place
    _sift_up(cache, place)


@compiled
def _heap_remove(cache: Cache, block: int) -> None:
    place = cache.blocks[block].place
    cache.counters[_HEAP] -= 1
    end = cache.counters[_HEAP]
    cache.blocks[block].place = -1
    if place == end:
        return
    mover = cache.heap[end]
    cache.heap[place] = mover
    cache.blocks[mover].place = place
    _sift_up(cache, place)
    _sift_down(cache, cache.blocks[mover].place)


@compiled
def _sift_up(cache: Cache, place: int) -> None:
    block = cache.heap[place]
    while place > 0:
        above = (place - 1) >> 1
        if not _before(cache, block, cache.heap[above]):
            break
        cache.heap[place] = cache.heap[above]
        cache.blocks[cache.heap[place]].place = place
        place = above
    cache.heap[place] = block
    cache.blocks[block].place = place


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
        cache.blocks[cache.heap[place]].place = place
        place = below
    cache.heap[place] = block
    cache.blocks[block].place = place
