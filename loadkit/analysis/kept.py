"""Hits of models whose states or windows are kept at a few places only: vLLM since 0.29.

Layers with full attention keep every block. A state layer keeps its state, and a window layer the
blocks of its last window, at two places of a prompt: at its last whole block, and where it began to
differ from what full attention still knew (so that the next request with the same beginning hits
there). A hit must be one for every kind of layer, so it ends at such a place: nothing of a reply is
reusable until a later prompt contains it, and the second request with a new common beginning misses.

The rule is that of `KVCacheCoordinator.cache_blocks`, `reachable_block_mask` and
`find_longest_cache_hit` with `prefix_cache_retention_interval` 0, its default (vLLM pull request
52216), equal to vLLM 0.32 in all requests of a record (tests/validation/record_vllm_places.py). Before, windows
kept every block, and states the places where a scheduler step ended. Models all of whose layers have
windows keep the first place only, and are not counted here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from loadkit.analysis.events import events_of
from loadkit.core.jit import compiled
from loadkit.core.trace import BoolArray, IntArray, Trace

SHARED_POOL = (
    "rates at a finite capacity are upper bounds: how this model's states and windows share the pool"
    " with other blocks, and which of them goes first, is not modelled"
)


def hits_where_kept(trace: Trace, limit: IntArray) -> IntArray:
    """Blocks hit (n,) in a cache of unlimited size, at most `limit` (n,) of each prompt.

    `trace.kept_blocks` has for each kind of layer how many blocks must be kept before a hit's end.
    """
    events = events_of(trace)
    needs = np.array(trace.kept_blocks, np.int64)
    return _pass(
        trace.block_ptr,
        trace.block_ids,
        events.resident_ptr,
        events.resident_ids,
        events.request,
        events.completes,
        limit,
        needs,
        np.zeros(trace.num_ids, np.bool_),
        np.zeros((len(needs), trace.num_ids), np.bool_),
    )


@compiled
def _pass(
    ptr: IntArray,
    ids: IntArray,
    resident_ptr: IntArray,
    resident_ids: IntArray,
    event_request: IntArray,
    event_completes: BoolArray,
    limit: IntArray,
    needs: IntArray,
    seen: BoolArray,
    kept: npt.NDArray[np.bool_],
) -> IntArray:
    hits = np.zeros(len(ptr) - 1, np.int64)
    for event in range(len(event_request)):
        request = event_request[event]
        if event_completes[event]:
            seen[resident_ids[resident_ptr[request] : resident_ptr[request + 1]]] = True
            continue
        chain = ids[ptr[request] : ptr[request + 1]]
        known = 0
        while known < limit[request] and seen[chain[known]]:
            known += 1
        hits[request] = _agreed(chain, known, needs, kept)
        for kind in range(len(needs)):
            _keep(chain, limit[request], needs[kind], kept[kind])
            if known > hits[request]:
                _keep(chain, known, needs[kind], kept[kind])
        seen[chain] = True
    return hits


@compiled
def _agreed(chain: IntArray, known: int, needs: IntArray, kept: npt.NDArray[np.bool_]) -> int:
    """The longest hit that every kind of layer has, at most `known` blocks."""
    hit, before = known, known + 1
    while hit < before:
        before = hit
        for kind in range(len(needs)):
            hit = _longest(chain, hit, needs[kind], kept[kind])
    return hit


@compiled
def _longest(chain: IntArray, most: int, need: int, kept: BoolArray) -> int:
    """The longest beginning of at most `most` blocks whose last `need` blocks, or all, are kept."""
    end, run = most, 0
    for block in range(most - 1, -1, -1):
        if kept[chain[block]]:
            run += 1
            if run >= need:
                return end
        else:
            end, run = block, 0
    return end


@compiled
def _keep(chain: IntArray, end: int, need: int, kept: BoolArray) -> None:
    for block in range(max(0, end - need), end):
        kept[chain[block]] = True
