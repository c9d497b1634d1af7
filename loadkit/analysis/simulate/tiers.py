"""Exclusive LRU tiers: device, host memory, disk. A block lives in one of them.

What a tier evicts becomes the most recent entry of the next one; a hit anywhere brings the block
back to the first. Together the tiers therefore hold what one LRU of their summed size holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadkit.analysis.events import events_of
from loadkit.analysis.per_request import PerRequest
from loadkit.analysis.reuse import Reuse
from loadkit.analysis.simulate.policies import requests_of
from loadkit.analysis.simulate.state import BoolArray
from loadkit.core.errors import InputError
from loadkit.core.jit import compiled
from loadkit.core.trace import IntArray

TIER_NAMES = ("device", "host", "disk")


@dataclass(frozen=True, slots=True)
class Tiers:
    """Hits by tier, both (n, tiers): leading blocks of each request found in each, and their tokens.

    What one tier has of a chain follows what the tiers before it have, as parents are more recent.
    """

    capacities_blocks: tuple[int, ...]
    tier_blocks: IntArray
    tier_tokens: IntArray
    requests: PerRequest


def simulate_tiers(reuse: Reuse, capacities_blocks: Sequence[int]) -> Tiers:
    """Serve the log from up to three tiers, first to last. InputError for none or more than three.

    A request longer than the first tier streams through it: its head ends on the device.
    """
    if not 1 <= len(capacities_blocks) <= len(TIER_NAMES):
        raise InputError(
            f"{len(capacities_blocks)} tiers asked for", where="--tiers", remedy="give one to three"
        )
    trace = reuse.trace
    events = events_of(trace)
    size = trace.num_ids + trace.num_requests
    tier_blocks = _serve(
        trace.block_ptr,
        trace.block_ids,
        events.resident_ptr,
        events.resident_ids,
        events.partial_page,
        events.request,
        events.completes,
        reuse.max_hit_blocks,
        np.array(capacities_blocks, np.int64),
        size,
    )
    upto = np.cumsum(tier_blocks, axis=1)
    tokens = np.stack([reuse.tokens(blocks) for blocks in upto.T], axis=1)
    return Tiers(
        capacities_blocks=tuple(capacities_blocks),
        tier_blocks=tier_blocks,
        tier_tokens=np.diff(tokens, axis=1, prepend=0),
        requests=requests_of(reuse, upto[:, -1]),
    )


@compiled
def _serve(
    ptr: IntArray,
    ids: IntArray,
    kept_ptr: IntArray,
    kept_ids: IntArray,
    partial_page: BoolArray,
    event_request: IntArray,
    event_completes: BoolArray,
    max_hit_blocks: IntArray,
    capacity: IntArray,
    num_entries: int,
) -> IntArray:
    num_tiers = len(capacity)
    found = np.zeros((len(ptr) - 1, num_tiers), np.int64)
    tier = np.full(num_entries, -1, np.int64)
    # One ring a tier through the sentinel num_entries + t: newer[sentinel] is its oldest entry.
    newer = np.arange(num_entries + num_tiers)
    older = np.arange(num_entries + num_tiers)
    size = np.zeros(num_tiers, np.int64)
    for event in range(len(event_request)):
        request = event_request[event]
        if event_completes[event]:
            chain = kept_ids[kept_ptr[request] : kept_ptr[request + 1]]
            if partial_page[request]:
                page = num_entries - len(partial_page) + request
                _to_top(page, tier, newer, older, size, capacity)
        else:
            chain = ids[ptr[request] : ptr[request + 1]]
            for k in range(max_hit_blocks[request]):
                if tier[chain[k]] < 0:
                    break
                found[request, tier[chain[k]]] += 1
        for k in range(len(chain) - 1, -1, -1):
            _to_top(chain[k], tier, newer, older, size, capacity)
    return found


@compiled
def _to_top(
    entry: int, tier: IntArray, newer: IntArray, older: IntArray, size: IntArray, capacity: IntArray
) -> None:
    """Make the entry the most recent of the first tier; each full tier hands its oldest on."""
    num_entries = len(tier)
    if tier[entry] >= 0:
        size[tier[entry]] -= 1
        newer[older[entry]], older[newer[entry]] = newer[entry], older[entry]
    for level in range(len(capacity)):
        sentinel = num_entries + level
        top = older[sentinel]
        newer[top], older[sentinel] = entry, entry
        older[entry], newer[entry] = top, sentinel
        tier[entry] = level
        size[level] += 1
        if size[level] <= capacity[level]:
            return
        entry = newer[sentinel]
        newer[sentinel], older[newer[entry]] = newer[entry], sentinel
        size[level] -= 1
    tier[entry] = -1
