"""A prefix-aware router as a simulation: an approximate block index and a guess of the queues."""

from __future__ import annotations

import numpy as np

from loadkit.analysis.nodes import NodeStream
from loadkit.analysis.weighted import NEVER
from loadkit.core.jit import compiled
from loadkit.core.trace import BoolArray, FloatArray, IntArray

# cost = new blocks + 0.5 x queued blocks: with a weight of 2 hit rates fell from .69 to .56.
QUEUE_WEIGHT = 0.5
# A replica may not be ahead of the mean queue by more than a quarter (bounded loads).
LOAD_BOUND = 1.25
# The index remembers this many replicas a node: those that took it last. With fewer than there are
# replicas, those left out of a prompt that all share look empty and get no more of its requests: with 8
# of 16 the public chat hour came out 8 to 10 points below one pooled cache, with all 1 to 2.
MAX_HOLDERS = 64
# Share of the time that replicas compute prompts (the rest is decoding and idle time), which sets how
# fast queues drain. An assumption: with 0.05 rates come within 1 point of one pooled cache on 4
# replicas in most worlds, with 0.7 long queues push sessions away from their caches and it is 1 to 6.
UTILISATION = 0.3


def route_by_prefix(
    stream: NodeStream, replicas: int, capacity_blocks: int | None, work_rate: float
) -> IntArray:
    """(n,) replica of each request: the one with the least new + 0.5 x queued blocks.

    A replica is taken to have forgotten a node once it computed its share of capacity_blocks (None:
    infinite) since it last served it. work_rate: blocks per second that the fleet must compute.
    """
    time_s = stream.event_time_s
    holders = min(replicas, MAX_HOLDERS)
    return _route(
        stream.event_ptr,
        stream.nodes,
        stream.weight,
        stream.event_request,
        stream.is_arrival,
        np.zeros(len(stream.event_request)) if time_s is None else time_s,
        replicas,
        NEVER if capacity_blocks is None else max(1, capacity_blocks // replicas),
        work_rate / UTILISATION / replicas,
        np.full((stream.num_nodes, holders), -1, np.int16),
        np.zeros((stream.num_nodes, holders), np.int64),
    )


@compiled
def _route(
    ptr: IntArray,
    nodes: IntArray,
    weight: IntArray,
    event_request: IntArray,
    is_arrival: BoolArray,
    time: FloatArray,
    replicas: int,
    room: int,
    drain: float,
    holder: IntArray,
    stamp: IntArray,
) -> IntArray:
    replica = np.zeros(int(is_arrival.sum()), np.int64)
    computed = np.zeros(replicas, np.int64)
    queue = np.zeros(replicas)
    before = 0.0
    for event in range(len(event_request)):
        if not is_arrival[event]:
            continue
        chain = nodes[ptr[event] : ptr[event + 1]]
        queue -= (time[event] - before) * drain
        queue = np.maximum(queue, 0.0)
        before = time[event]
        length = 0
        for node in chain:
            length += weight[node]
        matched = _matched(chain, weight, holder, stamp, computed, room)
        best = _cheapest(length, matched, queue, computed)
        new = length - matched[best]
        replica[event_request[event]] = best
        queue[best] += new
        computed[best] += new
        for node in chain:
            _remember(holder[node], stamp[node], best, computed)
    return replica


@compiled
def _matched(
    chain: IntArray,
    weight: IntArray,
    holder: IntArray,
    stamp: IntArray,
    computed: IntArray,
    room: int,
) -> IntArray:
    """Leading blocks of the chain that each replica is taken to hold."""
    blocks = np.zeros(len(computed), np.int64)
    reach = np.zeros(len(computed), np.int64)
    for k in range(len(chain)):
        any_left = False
        for slot in range(holder.shape[1]):
            who = holder[chain[k], slot]
            if who < 0 or reach[who] < k or computed[who] - stamp[chain[k], slot] > room:
                continue
            reach[who] = k + 1
            blocks[who] += weight[chain[k]]
            any_left = True
        if not any_left:
            break
    return blocks


@compiled
def _cheapest(length: int, matched: IntArray, queue: FloatArray, computed: IntArray) -> int:
    """Least cost among replicas within the load bound; ties go to the one that computed least."""
    bound = LOAD_BOUND * queue.mean() + length
    best, best_cost = -1, np.inf
    for who in range(len(queue)):
        if queue[who] > bound:
            continue
        cost = length - matched[who] + QUEUE_WEIGHT * queue[who]
        if cost < best_cost or (cost == best_cost and computed[who] < computed[best]):
            best, best_cost = who, cost
    return best


@compiled
def _remember(holder: IntArray, stamp: IntArray, who: int, computed: IntArray) -> None:
    """Note that `who` has the node now, in place of the holder that is stalest."""
    place, stalest = 0, -1
    for slot in range(len(holder)):
        if holder[slot] == who or holder[slot] < 0:
            place = slot
            break
        age = computed[holder[slot]] - stamp[slot]
        if age > stalest:
            place, stalest = slot, age
    holder[place] = who
    stamp[place] = computed[who]
