"""Exact node compression: blocks that are always touched together become one weighted node.

A block whose touches are exactly those of its parent (same count, and that one parent) tells
nothing that its parent does not, so a run of such blocks merges into one node whose weight is its
number of blocks: the nodes of a radix tree over the log. Nothing is lost, since in an LRU the
blocks of a node stay neighbours for ever. Real logs shrink by 8 to 58 times.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from loadkit.analysis.causes import own_prefix_blocks, replay_kinds
from loadkit.analysis.engines import as_cached, hit_tokens, max_hit_blocks
from loadkit.analysis.events import Events, events_of
from loadkit.core import csr
from loadkit.core.csr import places, pointers
from loadkit.core.errors import InputError
from loadkit.core.jit import compiled
from loadkit.core.trace import BoolArray, FloatArray, IntArray, Trace

KindArray = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class NodeRequests:
    """What the pass must know of each request; all arrays are (n,), lengths in blocks and tokens.

    max_hit_blocks is the engine's rule, max_hit_tokens the tokens of those blocks
    (`engines.hit_tokens`: a partial last block has fewer than a block). own_blocks are the leading
    blocks that the session had before, replay one of REPLAY_* (see `analysis.causes`).
    prompt_tokens has the partial last block too.
    """

    prompt_tokens: IntArray
    max_hit_blocks: IntArray
    max_hit_tokens: IntArray
    own_blocks: IntArray
    replay: KindArray
    prompt_key: IntArray
    session: IntArray

    def take(self, rows: IntArray) -> NodeRequests:
        """The same for some of the requests, in the order of `rows`."""
        return NodeRequests(
            *(getattr(self, name)[rows] for name in NodeRequests.__dataclass_fields__)
        )


@dataclass(frozen=True, slots=True)
class NodeStream:
    """A log as touches of weighted nodes. e = events, k = node touches, u = nodes, n = requests.

    Events are in order of time. An arrival looks the prompt up and makes it resident; a completion
    (only in logs with replies) makes the resident chain so, with the reply's unfinished page as a
    block of its own, which nobody asks for but which takes room.
    """

    block_size: int
    event_ptr: IntArray  # (e + 1,)
    nodes: IntArray  # (k,) head of the chain first
    weight: IntArray  # (u,) blocks of a node
    event_request: IntArray  # (e,)
    is_arrival: BoolArray  # (e,)
    event_time_s: FloatArray | None  # (e,) None: a corpus without time
    requests: NodeRequests

    @property
    def num_nodes(self) -> int:
        return len(self.weight)

    @property
    def num_requests(self) -> int:
        return len(self.requests.prompt_tokens)

    @property
    def distinct_blocks(self) -> int:
        """Blocks that ever become resident, replies and unfinished pages included."""
        return int(self.weight.sum())


def node_stream(trace: Trace, engine: str = "vllm") -> NodeStream:
    """Compress a trace as that engine keeps it, with its rule of how much of a prompt may hit (see
    `analysis.engines`). InputError for an unknown engine."""
    return stream_of(as_cached(trace, engine), engine)


def stream_of(trace: Trace, engine: str) -> NodeStream:
    """`node_stream` of a trace that is as the engine keeps it already (`engines.as_cached`)."""
    events = events_of(trace)
    may_hit = max_hit_blocks(trace, engine)
    ptr, blocks, num_blocks = _touches(trace, events)
    event_ptr, nodes, weight = compress(ptr, blocks, num_blocks)
    return NodeStream(
        block_size=trace.block_size,
        event_ptr=event_ptr,
        nodes=nodes,
        weight=weight,
        event_request=events.request.astype(np.int64),
        is_arrival=~events.completes,
        event_time_s=_event_times(trace, events),
        requests=NodeRequests(
            prompt_tokens=trace.prompt_tokens,
            max_hit_blocks=may_hit,
            max_hit_tokens=hit_tokens(may_hit, trace.prompt_tokens, trace.block_size),
            own_blocks=own_prefix_blocks(trace, events),
            replay=replay_kinds(trace.prompt_key, trace.session),
            prompt_key=trace.prompt_key,
            session=trace.session,
        ),
    )


def compress(
    ptr: IntArray, blocks: IntArray, num_blocks: int
) -> tuple[IntArray, IntArray, IntArray]:
    """(ptr, nodes, weight) of chains of blocks given as a CSR; ids must be below num_blocks.

    No chain may hold a block twice. A block with two parents starts a node of its own, so the
    result is exact for ids that are no prefix chains too.
    """
    heads, num_touches = _node_heads(ptr, blocks, num_blocks)
    nodes, weight = np.zeros(num_touches, np.int64), np.zeros(int(heads.sum()), np.int64)
    node_ptr = _join(ptr, blocks, heads, np.cumsum(heads) - 1, nodes, weight)
    return node_ptr, nodes, weight


def split_at_depths(stream: NodeStream, depths: IntArray) -> NodeStream:
    """The same stream with nodes cut where the chain reaches one of `depths` blocks (sorted).

    Nothing about hits changes; it only lets the blocks of a node differ in what is assumed of them.
    """
    start = node_starts(stream)
    first_cut = np.searchsorted(depths, start, side="right")
    pieces = np.searchsorted(depths, start + stream.weight, side="left") - first_cut + 1
    first_piece = np.cumsum(pieces) - pieces
    return replace(
        stream,
        event_ptr=pointers(pieces[stream.nodes])[stream.event_ptr],
        nodes=places(first_piece[stream.nodes], pieces[stream.nodes]),
        weight=_piece_weights(stream, depths, start, first_cut, pieces),
    )


def node_starts(stream: NodeStream) -> IntArray:
    """(u,) blocks above each node in its chain."""
    upto = pointers(stream.weight[stream.nodes])
    chain = np.repeat(stream.event_ptr[:-1], np.diff(stream.event_ptr))
    start = np.zeros(stream.num_nodes, np.int64)
    start[stream.nodes] = upto[:-1] - upto[chain]
    return start


def _piece_weights(
    stream: NodeStream, depths: IntArray, start: IntArray, first_cut: IntArray, pieces: IntArray
) -> IntArray:
    """Blocks of every piece: from its node's start or a cut to the next cut or its node's end."""
    node = np.repeat(np.arange(stream.num_nodes), pieces)
    index = csr.depths(pieces)
    cuts = np.append(depths, np.iinfo(np.int64).max)
    cut = first_cut[node] + index
    begin = np.where(index == 0, start[node], cuts[cut - 1])
    end = np.minimum(cuts[cut], (start + stream.weight)[node])
    weights: IntArray = end - begin
    return weights


def select_requests(stream: NodeStream, chosen: BoolArray) -> NodeStream:
    """The events of some requests only. (n,) `chosen`; nodes are not merged further, and request
    facts (replay, own blocks) stay those of the whole stream: choose whole sessions, or mean it."""
    event_kept = np.flatnonzero(chosen[stream.event_request])
    counts = np.diff(stream.event_ptr)[event_kept]
    touch = places(stream.event_ptr[event_kept], counts)
    new_row = np.cumsum(chosen) - 1
    times = stream.event_time_s
    return replace(
        stream,
        event_ptr=pointers(counts),
        nodes=stream.nodes[touch],
        event_request=new_row[stream.event_request[event_kept]],
        is_arrival=stream.is_arrival[event_kept],
        event_time_s=None if times is None else times[event_kept],
        requests=stream.requests.take(np.flatnonzero(chosen)),
    )


def times_of(stream: NodeStream) -> FloatArray:
    """Event times; InputError for a log without any."""
    if stream.event_time_s is None:
        raise InputError("the log has no timestamps", remedy="give every row a timestamp")
    return stream.event_time_s


def _touches(trace: Trace, events: Events) -> tuple[IntArray, IntArray, int]:
    """All events' chains as one CSR; an unfinished page is a block of its own at the chain's end."""
    if not events.completes.any():
        return trace.block_ptr, trace.block_ids, trace.num_ids
    rows, completes = events.request, events.completes
    start = np.where(completes, events.resident_ptr[rows], trace.block_ptr[rows])
    stop = np.where(completes, events.resident_ptr[rows + 1], trace.block_ptr[rows + 1])
    page = completes & events.partial_page[rows]
    counts = stop - start + page
    ptr = pointers(counts)
    # Prompts, replies and pages lie one after another in one array of ids to gather from.
    pool = np.concatenate(
        [trace.block_ids, events.resident_ids, trace.num_ids + np.arange(trace.num_requests)]
    )
    source = places(start + np.where(completes, trace.num_blocks, 0), counts)
    source[ptr[1:][page] - 1] = trace.num_blocks + len(events.resident_ids) + rows[page]
    return ptr, pool[source], trace.num_ids + trace.num_requests


def _event_times(trace: Trace, events: Events) -> FloatArray | None:
    if trace.arrival_s is None:
        return None
    arrival: FloatArray = trace.arrival_s[events.request]
    if trace.completed_s is None:
        return arrival
    return np.where(events.completes, trace.completed_s[events.request], arrival)


@compiled
def _node_heads(ptr: IntArray, blocks: IntArray, num_blocks: int) -> tuple[BoolArray, int]:
    """(num_blocks,) whether a block starts a node, ids that never occur do not; touches of those.

    A block starts a node if it stands first in a chain, follows different blocks, or is touched
    less often than the one that it follows.
    """
    heads = np.zeros(num_blocks, np.bool_)
    count, parent = np.zeros(num_blocks, np.int64), np.full(num_blocks, -1, np.int64)
    for row in range(len(ptr) - 1):
        before = -1
        for touch in range(ptr[row], ptr[row + 1]):
            block = blocks[touch]
            if count[block] == 0:
                parent[block] = before
            elif parent[block] != before:
                heads[block] = True
            count[block] += 1
            before = block
    touches = 0
    for block in range(num_blocks):
        if count[block] and (parent[block] < 0 or count[parent[block]] != count[block]):
            heads[block] = True
        touches += count[block] * heads[block]
    return heads, touches


@compiled
def _join(
    ptr: IntArray,
    blocks: IntArray,
    heads: BoolArray,
    node_of_block: IntArray,
    nodes: IntArray,
    weight: IntArray,
) -> IntArray:
    """Write the nodes of every chain and the blocks of every node; where each chain's begin."""
    node_ptr = np.zeros(len(ptr), np.int64)
    end = 0
    for row in range(len(ptr) - 1):
        for touch in range(ptr[row], ptr[row + 1]):
            if heads[blocks[touch]]:
                nodes[end] = node_of_block[blocks[touch]]
                weight[nodes[end]] = 0
                end += 1
            weight[nodes[end - 1]] += 1
        node_ptr[row + 1] = end
    return node_ptr
