"""Speed of the exact pass, which answers every capacity, beside one direct LRU of one capacity.

    python benchmarks/exact_pass.py LOG [--capacity BLOCKS] [--block-size N] [--repeat N]

Both run on the same trace, compiled, after a warm-up call; the best of several runs counts. The
direct simulation is an array-linked-list LRU in numba. It prints blocks (prompt block touches) per
second of each, and their ratio.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from loadkit.analysis.nodes import compress, node_stream
from loadkit.analysis.reuse import reuse_of
from loadkit.analysis.stack import stack_positions
from loadkit.analysis.weighted import leading_blocks
from loadkit.core.jit import compiled
from loadkit.core.trace import IntArray, Trace
from loadkit.traces import read_trace


@compiled
def direct_hits(ptr: IntArray, ids: IntArray, num_ids: int, capacity: int) -> int:
    """Hits of one LRU: look a chain up, then touch it tail first. Neighbours are in two arrays."""
    newer, older = np.full(num_ids + 1, -1, np.int64), np.full(num_ids + 1, -1, np.int64)
    end = num_ids  # sentinel: newer[end] is the oldest entry, older[end] the newest
    newer[end] = older[end] = end
    size, hits = 0, 0
    for request in range(len(ptr) - 1):
        for k in range(ptr[request], ptr[request + 1]):
            hits += newer[ids[k]] >= 0
        for k in range(ptr[request + 1] - 1, ptr[request] - 1, -1):
            block = ids[k]
            if newer[block] >= 0:
                newer[older[block]], older[newer[block]] = newer[block], older[block]
            else:
                size += 1
            top = older[end]
            newer[top], older[end] = block, block
            older[block], newer[block] = top, end
            if size > capacity:
                victim = newer[end]
                newer[end], older[newer[victim]] = newer[victim], end
                newer[victim] = older[victim] = -1
                size -= 1
    return hits


def best_of(repeat: int, call: Callable[[], object]) -> float:
    """Seconds of the fastest of `repeat` calls, after one that is not counted."""
    call()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def compare(trace: Trace, capacity: int, repeat: int) -> None:
    """Print the three speeds and check that both count the same hits."""
    stream = node_stream(trace, "none")
    merge = best_of(repeat, lambda: compress(trace.block_ptr, trace.block_ids, trace.num_ids))
    one_pass = best_of(repeat, lambda: stack_positions(stream))
    whole = best_of(repeat, lambda: reuse_of(trace))
    arguments = (trace.block_ptr, trace.block_ids, trace.num_ids, capacity)
    direct = best_of(repeat, lambda: direct_hits(*arguments))
    ours = int(leading_blocks(stream, stack_positions(stream), capacity).sum())
    theirs = direct_hits(*arguments)
    blocks = trace.num_blocks
    print(
        f"{blocks:,} blocks of {trace.num_requests:,} requests; hits at {capacity:,}: "
        f"pass {ours:,}, direct {theirs:,}"
    )
    print(f"blocks merged into nodes    {blocks / merge / 1e6:8.1f} M blocks/s")
    print(f"exact pass over the nodes   {blocks / one_pass / 1e6:8.1f} M blocks/s")
    print(f"both, causes and replays    {blocks / whole / 1e6:8.1f} M blocks/s")
    print(f"direct LRU, one capacity    {blocks / direct / 1e6:8.1f} M blocks/s")
    ratio = (merge + one_pass) / direct
    print(f"time of nodes and pass / time of one direct simulation: {ratio:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("--capacity", type=int, default=10_000)
    parser.add_argument("--block-size", type=int)
    parser.add_argument("--repeat", type=int, default=7)
    asked = parser.parse_args()
    trace = read_trace([asked.log], block_size=asked.block_size)
    compare(trace, asked.capacity, asked.repeat)


if __name__ == "__main__":
    main()
