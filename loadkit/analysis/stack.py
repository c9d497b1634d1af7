"""The one pass over a log: LRU stack positions, exact at every capacity (Mattson et al., 1970).

Every request touches its chain tail first, head last, so a parent is always more recent than its
children: plain LRU then evicts leaves only, the cached part of a chain is always a prefix of it,
and LRU stays a stack algorithm. The blocks of a node (see `analysis.nodes`) lie one after another
in the stack, its head nearest to the top: with `newer` blocks more recent than the node, its j-th
block (from 1) has position newer + j, and hits in a cache of C blocks if and only if that is at
most C. Expiry that is refreshed on use keeps LRU a stack algorithm, with the node's idle time as a
second limit. (A TTL counted from insertion does not: `analysis.simulate`.)

Time is cut into slots, one a touch. A slot is live while it holds the last touch of its node, and
weighs as many blocks as the node. Live weight is summed in buckets of 64 slots with a Fenwick tree
over the buckets. A chain touched together lies in neighbouring slots, so most positions follow from
the parent's, and most updates of a bucket come in runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadkit.analysis.nodes import NodeStream, times_of
from loadkit.core.jit import compiled
from loadkit.core.trace import BoolArray, FloatArray, IntArray

UNSEEN = -1


@dataclass(frozen=True, slots=True)
class Positions:
    """Where an arrival finds the nodes of its chain; k = node touches of the stream."""

    newer: IntArray  # (k,) more recent blocks; UNSEEN if never seen, or below such a node
    idle_s: FloatArray | None  # (k,) since the node was last touched; None: not asked for


def stack_positions(stream: NodeStream, with_idle: bool = False) -> Positions:
    """Run the pass. Touches of completions are not looked up, theirs are UNSEEN.

    `with_idle` measures how long nodes were idle too: InputError for a stream without times.
    """
    touches = len(stream.nodes)
    newer = np.full(touches, UNSEEN, np.int64)
    idle_s = np.zeros(touches if with_idle else 0)
    _pass(
        stream.event_ptr,
        stream.nodes,
        stream.weight,
        stream.is_arrival,
        times_of(stream) if with_idle else np.zeros(0),
        np.zeros(stream.num_nodes, np.int64),
        np.zeros(stream.num_nodes if with_idle else 0),
        np.zeros(touches + _BUCKET + 1, np.int64),
        np.zeros(touches // _BUCKET + 3, np.int64),
        newer,
        idle_s,
    )
    return Positions(newer, idle_s if with_idle else None)


_BUCKET = 64
_SHIFT = 6


@compiled
def _pass(
    ptr: IntArray,
    nodes: IntArray,
    weight: IntArray,
    is_arrival: BoolArray,
    time: FloatArray,
    slot_of: IntArray,
    touched_at: FloatArray,
    live: IntArray,
    tree: IntArray,
    newer: IntArray,
    idle_s: FloatArray,
) -> None:
    clock, live_weight = 0, 0
    for event in range(len(is_arrival)):
        start, stop = ptr[event], ptr[event + 1]
        chain = nodes[start:stop]
        if is_arrival[event]:
            _look_up(chain, weight, slot_of, live, tree, live_weight, newer[start:stop])
        if len(time):
            for k in range(len(chain)):
                idle_s[start + k] = time[event] - touched_at[chain[k]]
                touched_at[chain[k]] = time[event]
        live_weight += _touch(chain, weight, slot_of, live, tree, clock)
        clock += len(chain)


@compiled
def _look_up(
    chain: IntArray,
    weight: IntArray,
    slot_of: IntArray,
    live: IntArray,
    tree: IntArray,
    live_weight: int,
    newer: IntArray,
) -> None:
    """Write the blocks newer than each node of the chain, head to tail, up to an unseen one."""
    previous_slot = -1
    for k in range(len(chain)):
        slot = slot_of[chain[k]]
        if slot == 0:
            return
        if slot == previous_slot - 1:
            newer[k] = newer[k - 1] + weight[chain[k - 1]]
        else:
            newer[k] = live_weight - _live_through(slot, live, tree)
        previous_slot = slot


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
