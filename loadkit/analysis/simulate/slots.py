"""llama.cpp's server: N slots, each holding the tokens of the last sequence that it served.

The rule, from llama.cpp's documentation of `--slot-prompt-similarity` and its server's log lines
("selected slot by LCP similarity", "selected slot by LRU"), checked against a live server:

- Among idle slots that hold something, the one whose tokens have the longest common prefix with the
  prompt is taken, if that prefix is more than `similarity` (default .1) of the prompt; the first
  such slot at a tie. Otherwise the slot that has been idle longest, an unused one of the highest
  number first.
- The slot keeps the common prefix, but at most all tokens of the prompt but one, and computes the
  rest. Afterwards it holds prompt and reply, without the last sampled token.
- With all slots busy, requests wait in order.

With a prompt cache in host memory an overwritten sequence can come back: see `host_cache`. Not
modelled: `--cache-reuse`; prompts longer than a slot's context.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np

from loadkit.analysis.events import kept_chains
from loadkit.analysis.per_request import PerRequest
from loadkit.analysis.reuse import Reuse
from loadkit.analysis.simulate.host_cache import KEPT_WITHOUT_SAVING, HostCache, common_prefix
from loadkit.analysis.simulate.policies import requests_of
from loadkit.core.errors import InputError
from loadkit.core.trace import IntArray

DEFAULT_SIMILARITY = 0.1
_NEVER_USED = -1.0


@dataclass
class Slot:
    """One sequence's blocks, and when the slot was last released."""

    number: int
    blocks: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    released_s: float = _NEVER_USED


@dataclass(frozen=True, slots=True)
class SlotCache:
    """Hits of a log served from slots. chosen is (n,), the slot's number of each request."""

    num_slots: int
    similarity: float
    chosen: IntArray
    requests: PerRequest


def simulate_slots(
    reuse: Reuse,
    num_slots: int,
    similarity: float = DEFAULT_SIMILARITY,
    *,
    host: HostCache | None = None,
    order: IntArray | None = None,
    latency_s: float | None = None,
) -> SlotCache:
    """Serve the log from slots. `reuse` should be of blocks of one token; coarser ones round down.

    Requests run from arrival (or when a slot is free) for their latency; without times one after
    another. order: rows in the order in which these very slots began them, where the log is of them:
    then a latency includes the wait for a slot, and the slot is free again when the request
    completed. host: the prompt cache in host memory, empty
    at the start. latency_s: of each request, in place of the log's. InputError for no slots or a similarity outside 0..1.
    """
    if num_slots < 1:
        raise InputError(f"{num_slots} slots", where="--slots", remedy="give at least 1")
    if not 0 <= similarity <= 1:
        raise InputError(f"similarity {similarity} is not within 0..1", where="--slot-similarity")
    trace = reuse.trace
    kept_ptr, kept_ids = kept_chains(trace)
    pool = _Pool([Slot(number) for number in range(num_slots)])
    hits, chosen = np.zeros(trace.num_requests, np.int64), np.zeros(trace.num_requests, np.int64)
    times = _times(reuse, latency_s)
    for request in range(trace.num_requests) if order is None else order:
        arrival_s, latency_s = times[request]
        start_s = pool.wait(arrival_s)
        prompt = trace.block_ids[trace.block_ptr[request] : trace.block_ptr[request + 1]]
        slot = choose_slot(pool.idle, prompt, similarity)
        if host is not None:
            _use_host(host, pool.idle, slot, prompt, similarity)
        hits[request] = min(common_prefix(slot.blocks, prompt), reuse.max_hit_blocks[request])
        chosen[request] = slot.number
        slot.blocks = kept_ids[kept_ptr[request] : kept_ptr[request + 1]]
        waited_s = 0.0 if order is None else min(latency_s, start_s - arrival_s)
        pool.run(slot, start_s + latency_s - waited_s)
    return SlotCache(num_slots, similarity, chosen, requests_of(reuse, hits))


class _Pool:
    """Which slots are idle, by number, and when the others will be."""

    def __init__(self, slots: list[Slot]):
        self.idle = slots
        self._busy: list[tuple[float, int, Slot]] = []

    def wait(self, arrival_s: float) -> float:
        """Move the time on until a slot is idle; returns when the request starts."""
        start_s = arrival_s
        while self._busy and (self._busy[0][0] <= start_s or not self.idle):
            start_s = max(start_s, self._busy[0][0])
            self.idle.append(heapq.heappop(self._busy)[2])
        self.idle.sort(key=lambda slot: slot.number)
        return start_s

    def run(self, slot: Slot, until_s: float) -> None:
        self.idle.remove(slot)
        slot.released_s = until_s
        heapq.heappush(self._busy, (until_s, slot.number, slot))


def choose_slot(idle: list[Slot], prompt: IntArray, similarity: float) -> Slot:
    """The slot that the server takes from those that are idle, in order of their numbers."""
    best = max(idle, key=lambda slot: common_prefix(slot.blocks, prompt))
    if common_prefix(best.blocks, prompt) > similarity * len(prompt):
        return best
    return min(idle, key=lambda slot: (slot.released_s, -slot.number))


def _use_host(
    host: HostCache, idle: list[Slot], slot: Slot, prompt: IntArray, similarity: float
) -> None:
    """What the host cache does when `slot`, of those that are idle, is about to take the prompt."""
    shared = common_prefix(slot.blocks, prompt)
    by_lru = shared <= similarity * len(prompt)
    if by_lru or shared < KEPT_WITHOUT_SAVING * len(slot.blocks):
        host.save(slot.blocks)
        slot.blocks = host.take_for(prompt, slot.blocks)
    for other in idle:
        if other is not slot:
            host.save(other.blocks)
            if host.empties_idle:
                other.blocks = other.blocks[:0]


def _times(reuse: Reuse, latency_s: float | None) -> list[tuple[float, float]]:
    """(arrival, latency) of each request; without times each starts when the one before is done."""
    trace = reuse.trace
    if trace.arrival_s is None or (trace.completed_s is None and latency_s is None):
        return [(float(row), 0.0) for row in range(trace.num_requests)]
    latency = np.full(trace.num_requests, latency_s, np.float64)
    if latency_s is None and trace.completed_s is not None:
        latency = trace.completed_s - trace.arrival_s
    return list(zip(trace.arrival_s.tolist(), latency.tolist(), strict=True))
