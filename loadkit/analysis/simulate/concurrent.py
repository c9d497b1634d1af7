"""Requests that overlap: blocks that are being computed, pinned blocks, and queues for room.

A request arrives, waits until it may start, computes the part of its prompt that does not hit, and
runs for its logged latency. While it runs its blocks cannot be evicted, and its whole prompt has
room reserved; a request that does not fit waits, and those behind it too. The unfinished last block
of a running request is not counted. What a prompt needs that another request is computing just now
is treated in one of three ways:

- wait: the request starts when that block is there (the reference server; it is passed by others);
- share: it hits at once (vLLM, which registers blocks as it schedules them);
- recompute: it is computed a second time (engines that insert a prompt when its prefill is done).

Prompt blocks are there when the prefill ends: computed tokens / `prefill_tokens_per_s` after the
start, at the latest at the end of the request; without a known speed at its end. Replies enter the
cache at the end. Eviction is LRU, leaves only.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from dataclasses import dataclass, field

import numpy as np

from loadkit.analysis.engines import hit_tokens
from loadkit.analysis.events import kept_chains
from loadkit.analysis.per_request import PerRequest
from loadkit.analysis.reuse import Reuse
from loadkit.analysis.simulate.policies import requests_of
from loadkit.analysis.weighted import NEVER
from loadkit.core.errors import CannotMeasure, InputError
from loadkit.core.trace import FloatArray, IntArray

IN_FLIGHT = ("wait", "share", "recompute")


@dataclass(frozen=True, slots=True)
class Concurrent:
    """A log served with overlap. Arrays are (n,); times in seconds since the log's own zero.

    in_flight_tokens: leading tokens behind the hit that another request was computing at the start
    (0 but for `recompute`). refused counts requests whose prompt is larger than the cache: they
    hit nothing and leave nothing.
    """

    in_flight: str
    capacity_blocks: int | None
    start_s: FloatArray
    in_flight_tokens: IntArray
    refused: int
    requests: PerRequest


def simulate_concurrent(
    reuse: Reuse,
    capacity_blocks: int | None = None,
    in_flight: str = "wait",
    *,
    prefill_tokens_per_s: float | None = None,
    latency_s: float | None = None,
) -> Concurrent:
    """Serve the log with overlap; `latency_s` stands for requests whose latency the log lacks.

    CannotMeasure without arrival times, or without latencies from either source.
    """
    if in_flight not in IN_FLIGHT:
        raise InputError(
            f"unknown way {in_flight!r}",
            where="--in-flight",
            remedy=f"one of {', '.join(IN_FLIGHT)}",
        )
    server = _Server(reuse, capacity_blocks, in_flight, prefill_tokens_per_s)
    server.run(*_arrivals_and_latencies(reuse, latency_s))
    return Concurrent(
        in_flight=in_flight,
        capacity_blocks=capacity_blocks,
        start_s=server.start_s,
        in_flight_tokens=server.in_flight_tokens(),
        refused=server.refused,
        requests=requests_of(reuse, server.hit_blocks),
    )


def _arrivals_and_latencies(reuse: Reuse, latency_s: float | None) -> tuple[FloatArray, FloatArray]:
    trace = reuse.trace
    if trace.arrival_s is None:
        raise CannotMeasure("overlap needs timestamps, and the log has none")
    if latency_s is not None:
        return trace.arrival_s, np.full(trace.num_requests, float(latency_s))
    if trace.completed_s is None:
        raise CannotMeasure(
            "overlap needs latencies, and the log has none", remedy="--latency SECONDS for all"
        )
    return trace.arrival_s, trace.completed_s - trace.arrival_s


@dataclass
class _Pages:
    """An LRU of block ids with pins. Idle entries are in order of their last touch."""

    capacity: int
    idle: OrderedDict[int, None] = field(default_factory=OrderedDict)
    pins: dict[int, int] = field(default_factory=dict)
    reserved: int = 0

    def __contains__(self, block: int) -> bool:
        return block in self.idle or block in self.pins

    def pin(self, block: int) -> None:
        self.idle.pop(block, None)
        self.pins[block] = self.pins.get(block, 0) + 1

    def release(self, blocks: list[int]) -> None:
        """Unpin and touch, tail first; an idle parent then is always newer than its child."""
        for block in reversed(blocks):
            self.pins[block] -= 1
            if not self.pins[block]:
                del self.pins[block]
                self.idle[block] = None

    def fits(self, missing: int, matched: list[int]) -> bool:
        """Whether `missing` new blocks have room once `matched` are pinned."""
        newly_pinned = sum(block not in self.pins for block in matched)
        return len(self.pins) + newly_pinned + self.reserved + missing <= self.capacity

    def make_room(self) -> None:
        """Evict idle blocks, oldest first, until all that is there or reserved fits."""
        while self.idle and len(self.idle) + len(self.pins) + self.reserved > self.capacity:
            self.idle.popitem(last=False)


class _Server:
    """The event loop; see the module. `_computing` counts who computes a block that is not there."""

    def __init__(
        self, reuse: Reuse, capacity_blocks: int | None, in_flight: str, speed: float | None
    ):
        self._reuse, self._trace = reuse, reuse.trace
        self._kept_ptr, self._kept_ids = kept_chains(reuse.trace)
        self._pages = _Pages(NEVER if capacity_blocks is None else capacity_blocks)
        self._in_flight, self._speed = in_flight, speed
        self._computing: dict[int, int] = {}
        self._held: dict[int, list[int]] = {}  # pinned blocks of running requests, a chain each
        self._todo: dict[int, list[int]] = {}  # blocks that a request has reserved room for
        self._events: list[tuple[float, int, int]] = []
        num = reuse.trace.num_requests
        self.hit_blocks, self.in_flight_blocks = np.zeros(num, np.int64), np.zeros(num, np.int64)
        self.start_s = np.full(num, np.nan)
        self.refused = 0

    def in_flight_tokens(self) -> IntArray:
        """(n,) see `Concurrent`."""
        tokens = self._reuse.tokens
        return tokens(self.hit_blocks + self.in_flight_blocks) - tokens(self.hit_blocks)

    def run(self, arrival_s: FloatArray, latency_s: FloatArray) -> None:
        """Serve all requests. What ends or arrives at one instant does so before anything starts."""
        self._events = [(float(at), 2, row) for row, at in enumerate(arrival_s)]
        heapq.heapify(self._events)
        waiting: deque[int] = deque()
        while self._events:
            now, kind, row = heapq.heappop(self._events)
            if kind == 0:
                self._publish(row)
            elif kind == 1:
                self._finish(row)
            else:
                waiting.append(row)
            if not (self._events and self._events[0][0] <= now):
                self._start_waiting(waiting, now, latency_s)

    def _start_waiting(self, waiting: deque[int], now: float, latency_s: FloatArray) -> None:
        """First come first served, but whoever waits for a block being computed is passed."""
        passed: list[int] = []
        while waiting:
            row = waiting.popleft()
            started = self._start(row, now, float(latency_s[row]))
            if started is False:
                waiting.appendleft(row)
                break
            if started is None:
                passed.append(row)
        waiting.extendleft(reversed(passed))

    def _start(self, row: int, now: float, latency_s: float) -> bool | None:
        """True: runs or refused. False: no room now. None: waits for somebody's block."""
        chain = self._prompt(row)
        if len(chain) > self._pages.capacity:
            self.refused += 1
            self.start_s[row] = now
            return True
        matched = next((k for k, b in enumerate(chain) if b not in self._pages), len(chain))
        may_hit = int(self._reuse.max_hit_blocks[row])
        if self._in_flight == "wait" and matched < may_hit and chain[matched] in self._computing:
            return None
        if not self._pages.fits(len(chain) - matched, chain[:matched]):
            return False
        self.start_s[row] = now
        self.hit_blocks[row] = min(matched, may_hit)
        self._count_in_flight(row, chain[matched:may_hit])
        self._occupy(row, chain, matched)
        self._schedule(row, now, latency_s)
        return True

    def _count_in_flight(self, row: int, missing: list[int]) -> None:
        known = next((k for k, b in enumerate(missing) if b not in self._computing), len(missing))
        self.in_flight_blocks[row] = known

    def _occupy(self, row: int, chain: list[int], matched: int) -> None:
        """Pin what is there, reserve the rest, evict idle blocks for it."""
        for block in chain[:matched]:
            self._pages.pin(block)
        self._held[row], self._todo[row] = chain[:matched], chain[matched:]
        self._pages.reserved += len(chain) - matched
        self._pages.make_room()
        for block in self._todo[row]:
            self._computing[block] = self._computing.get(block, 0) + 1
        if self._in_flight == "share":
            self._publish(row)

    def _schedule(self, row: int, now: float, latency_s: float) -> None:
        prefill_s = latency_s
        if self._speed is not None:
            prompt = self._trace.prompt_tokens[row : row + 1]
            hit = hit_tokens(self.hit_blocks[row : row + 1], prompt, self._trace.block_size)
            prefill_s = min(latency_s, int((prompt - hit)[0]) / self._speed)
        heapq.heappush(self._events, (now + prefill_s, 0, row))
        heapq.heappush(self._events, (now + latency_s, 1, row))

    def _publish(self, row: int) -> None:
        """The prefill is done: reserved blocks are there; a twin's block keeps its page."""
        for block in self._todo.pop(row, ()):
            self._computing[block] -= 1
            if not self._computing[block]:
                del self._computing[block]
            self._pages.reserved -= 1
            self._pages.pin(block)
            self._held[row].append(block)

    def _finish(self, row: int) -> None:
        """Release the prompt and add the reply, as far as idle blocks make room for it."""
        held = self._held.pop(row)
        for block in self._kept(row)[len(held) :]:
            if block not in self._pages and not self._pages.fits(1, held):
                break
            self._pages.pin(block)
            held.append(block)
            self._pages.make_room()
        self._pages.release(held)

    def _prompt(self, row: int) -> list[int]:
        trace = self._trace
        chain: list[int] = trace.block_ids[trace.block_ptr[row] : trace.block_ptr[row + 1]].tolist()
        return chain

    def _kept(self, row: int) -> list[int]:
        chain: list[int] = self._kept_ids[self._kept_ptr[row] : self._kept_ptr[row + 1]].tolist()
        return chain
