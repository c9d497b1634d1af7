"""How much of a prompt its own session had before: the part that is continuation, not sharing.

The blocks a session has had are closed under "parent of" (a chained hash seen means its ancestors
were seen), so they form a prefix of every chain and one number a request tells them all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from loadkit.analysis.events import Events
from loadkit.core.jit import compiled
from loadkit.core.trace import IntArray, Trace

BoolArray = npt.NDArray[np.bool_]


def own_prefix_blocks(trace: Trace, events: Events) -> IntArray:
    """Leading prompt blocks (n,) that the request's session had before, in prompts or replies."""
    return _own_prefix(
        trace.block_ptr,
        trace.block_ids,
        events.resident_ptr,
        events.resident_ids,
        events.request,
        events.completes,
        trace.session,
        trace.num_ids,
    )


@compiled
def _own_prefix(
    ptr: IntArray,
    ids: IntArray,
    resident_ptr: IntArray,
    resident_ids: IntArray,
    event_request: IntArray,
    event_completes: BoolArray,
    session: IntArray,
    num_ids: int,
) -> IntArray:
    own = np.zeros(len(ptr) - 1, np.int64)
    table, used = np.full(1 << 12, -1, np.int64), 0
    for event in range(len(event_request)):
        request = event_request[event]
        if event_completes[event]:
            chain = resident_ids[resident_ptr[request] : resident_ptr[request + 1]]
        else:
            chain = ids[ptr[request] : ptr[request + 1]]
        while 2 * (used + len(chain)) > len(table):
            table = _grown(table)
        first_key = session[request] * num_ids
        k = len(chain)
        while k > 0 and _insert(table, first_key + chain[k - 1]):
            k -= 1
            used += 1
        if not event_completes[event]:
            own[request] = k
    return own


@compiled
def _insert(table: IntArray, key: int) -> bool:
    """Put a key >= 0 into the open-addressing set; False if it was there."""
    mask = np.uint64(len(table) - 1)
    # Fibonacci hashing: the top bits of key * 2^64 / golden ratio are well mixed.
    slot = ((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20)) & mask
    while table[slot] != -1:
        if table[slot] == key:
            return False
        slot = (slot + np.uint64(1)) & mask
    table[slot] = key
    return True


@compiled
def _grown(table: IntArray) -> IntArray:
    bigger = np.full(2 * len(table), -1, np.int64)
    for key in table:
        if key != -1:
            _insert(bigger, key)
    return bigger
