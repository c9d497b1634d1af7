"""Stack positions block by block, as oracles give them."""

from __future__ import annotations

import numpy as np

from loadkit.analysis.nodes import node_stream
from loadkit.analysis.stack import stack_positions
from loadkit.core.trace import IntArray, Trace


def block_positions(trace: Trace) -> IntArray:
    """(m,) of every prompt block, in the log's order: 1 is the most recent; 0 never seen before."""
    stream = node_stream(trace)
    newer, weight = stack_positions(stream).newer, stream.weight[stream.nodes]
    found: list[list[int]] = [[] for _ in range(trace.num_requests)]
    for event in np.flatnonzero(stream.is_arrival):
        for touch in range(stream.event_ptr[event], stream.event_ptr[event + 1]):
            first, blocks = int(newer[touch]) + 1, int(weight[touch])
            run = range(first, first + blocks) if first else [0] * blocks
            found[stream.event_request[event]] += run
    return np.array([position for chain in found for position in chain], np.int64)
