"""Shared prefixes: the block tree cut at its branching points, and what each part carries.

A segment is a run of blocks without a branch: a system prompt, a document after it, one session's
history. Every block is in one segment, so hit tokens add up over segments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loadkit.analysis.reuse import Reuse
from loadkit.core.jit import compiled
from loadkit.core.trace import BoolArray, IntArray
from loadkit.traces.sessions import num_children

SmallInts = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Segments:
    """Parts of the block tree; g = number of segments, in order of first touch."""

    start_block: IntArray  # (g,) depth of the first block
    num_tokens: IntArray  # (g,) the most that a prompt has of it
    first_request: IntArray  # (g,) row that brought it
    requests: IntArray  # (g,) rows that have some of it
    sessions: IntArray  # (g,) sessions that have some of it
    hit_tokens: IntArray  # (g,) hits on blocks that the session itself had not had

    @property
    def shared(self) -> IntArray:
        """Indices of the segments that more than one session has."""
        return np.flatnonzero(self.sessions > 1)


def segments_of(reuse: Reuse) -> Segments:
    """Cut the tree of prompt blocks, and count."""
    trace = reuse.trace
    segment = np.full(trace.num_ids, -1, np.int32)
    branches = num_children(trace.block_ptr, trace.block_ids, trace.num_ids) > 1
    size = _assign(trace.block_ptr, trace.block_ids, branches, segment)
    order = np.lexsort((np.arange(trace.num_requests), trace.session))
    start, tokens, first, requests, sessions, hits = _count(
        trace.block_ptr,
        trace.block_ids,
        trace.prompt_tokens,
        trace.block_size,
        trace.session,
        order,
        reuse.own_blocks,
        reuse.hit_blocks(None),
        segment,
        size,
    )
    return Segments(start, tokens, first, requests, sessions, hits)


@compiled
def _assign(ptr: IntArray, ids: IntArray, branches: BoolArray, segment: SmallInts) -> int:
    """Fill segment (num_ids,) in order of first touch; how many there are."""
    size = 0
    for request in range(len(ptr) - 1):
        for touch in range(ptr[request], ptr[request + 1]):
            block = ids[touch]
            if segment[block] != -1:
                continue
            if touch == ptr[request] or branches[ids[touch - 1]]:
                segment[block] = size
                size += 1
            else:
                segment[block] = segment[ids[touch - 1]]
    return size


@compiled
def _count(
    ptr: IntArray,
    ids: IntArray,
    prompt_tokens: IntArray,
    block_size: int,
    session: IntArray,
    order: IntArray,
    own_blocks: IntArray,
    hit_blocks: IntArray,
    segment: SmallInts,
    size: int,
) -> tuple[IntArray, IntArray, IntArray, IntArray, IntArray, IntArray]:
    """See Segments. `order` goes session by session, so the last one seen tells them apart. Tokens as
    in `engines.hit_tokens`: a partial last block has what the prompt has left."""
    start, tokens = np.zeros(size, np.int64), np.zeros(size, np.int64)
    first = np.full(size, len(ptr), np.int64)
    requests, sessions = np.zeros(size, np.int64), np.zeros(size, np.int64)
    hits, last = np.zeros(size, np.int64), np.full(size, -1, np.int64)
    for request in order:
        current = -1
        for touch in range(ptr[request], ptr[request + 1]):
            depth = touch - ptr[request]
            part = segment[ids[touch]]
            if part != current:
                current = part
                start[part] = depth
                requests[part] += 1
                first[part] = min(first[part], request)
                if last[part] != session[request]:
                    last[part] = session[request]
                    sessions[part] += 1
            end = min((depth + 1) * block_size, prompt_tokens[request])
            tokens[part] = max(tokens[part], end - start[part] * block_size)
            if own_blocks[request] <= depth < hit_blocks[request]:
                hits[part] += end - depth * block_size
    return start, tokens, first, requests, sessions, hits
