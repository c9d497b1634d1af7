"""Exact LRU at every capacity in one pass: stack positions of blocks (Mattson et al., 1970).

Every request touches its chain tail first, head last, so a parent is always more recent than its
children: plain LRU then evicts leaves only, the cached part of a chain is always a prefix of it,
and LRU stays a stack algorithm. A block hits in a cache of C blocks if and only if its position is
at most C.

Time is cut into slots, one a touch. A slot is live while it holds the last touch of its entry; the
position of an entry is 1 + the live slots after its own. Live slots are counted in buckets of 64
with a Fenwick tree over the buckets. A chain touched together lies in neighbouring slots, so most
positions are the parent's plus one, and most updates of a bucket come in runs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from loadkit.analysis.events import Events
from loadkit.core.jit import compiled
from loadkit.core.trace import BoolArray, IntArray, Trace

ByteArray = npt.NDArray[np.uint8]


def stack_positions(trace: Trace, events: Events) -> IntArray:
    """LRU stack position (m,) of every prompt block when its request arrives.

    1 is the most recent entry; 0 means never seen before. The entries are blocks, and pages left
    unfinished by a reply, which never hit but take room.
    """
    touches = trace.num_blocks + len(events.resident_ids) + trace.num_requests
    return _pass(
        trace.block_ptr,
        trace.block_ids,
        events.resident_ptr,
        events.resident_ids,
        events.partial_page,
        events.request,
        events.completes,
        np.zeros(trace.num_ids, np.int64),
        np.zeros(touches + 65, np.uint8),
        np.zeros(touches // 64 + 3, np.int64),
    )


@compiled
def _pass(
    ptr: IntArray,
    ids: IntArray,
    resident_ptr: IntArray,
    resident_ids: IntArray,
    partial_page: BoolArray,
    event_request: IntArray,
    event_completes: BoolArray,
    slot_of: IntArray,
    live: ByteArray,
    tree: IntArray,
) -> IntArray:
    position = np.zeros(len(ids), np.int64)
    clock, num_live = 0, 0
    for event in range(len(event_request)):
        request = event_request[event]
        if event_completes[event]:
            chain = resident_ids[resident_ptr[request] : resident_ptr[request + 1]]
            if partial_page[request]:
                clock += 1
                num_live += 1
                live[clock] = 1
                _add(tree, clock >> 6, 1)
        else:
            start, stop = ptr[request], ptr[request + 1]
            chain = ids[start:stop]
            _look_up(chain, slot_of, live, tree, num_live, position[start:stop])
        num_live += _touch(chain, slot_of, live, tree, clock)
        clock += len(chain)
    return position


@compiled
def _look_up(
    chain: IntArray,
    slot_of: IntArray,
    live: ByteArray,
    tree: IntArray,
    num_live: int,
    position: IntArray,
) -> None:
    """Write the position of each block of the chain, head to tail, up to the first unseen one."""
    previous_slot, previous = -1, 0
    for k in range(len(chain)):
        slot = slot_of[chain[k]]
        if slot == 0:
            return
        if slot == previous_slot - 1:
            previous += 1
        else:
            previous = num_live - _live_through(slot, live, tree) + 1
        position[k] = previous
        previous_slot = slot


@compiled
def _touch(chain: IntArray, slot_of: IntArray, live: ByteArray, tree: IntArray, clock: int) -> int:
    """Make the chain the most recent, tail first, in the slots after `clock`; count new entries."""
    new_entries = 0
    old_bucket, removed = 0, 0
    bucket, added = 0, 0
    for k in range(len(chain) - 1, -1, -1):
        slot = slot_of[chain[k]]
        if slot > 0:
            live[slot] = 0
            if slot >> 6 != old_bucket:
                _add(tree, old_bucket, -removed)
                old_bucket, removed = slot >> 6, 0
            removed += 1
        else:
            new_entries += 1
        clock += 1
        live[clock] = 1
        slot_of[chain[k]] = clock
        if clock >> 6 != bucket:
            _add(tree, bucket, added)
            bucket, added = clock >> 6, 0
        added += 1
    _add(tree, old_bucket, -removed)
    _add(tree, bucket, added)
    return new_entries


@compiled
def _add(tree: IntArray, bucket: int, amount: int) -> None:
    """Add to a bucket's count of live slots (Fenwick tree, entry i stands for bucket i - 1)."""
    if amount == 0:
        return
    i = bucket + 1
    while i < len(tree):
        tree[i] += amount
        i += i & -i


@compiled
def _live_through(slot: int, live: ByteArray, tree: IntArray) -> int:
    """Live slots up to and with `slot`: whole buckets from the tree, the rest one by one."""
    bucket = slot >> 6
    count = 0
    i = bucket
    while i > 0:
        count += tree[i]
        i -= i & -i
    for other in range(bucket << 6, slot + 1):
        count += live[other]
    return count
