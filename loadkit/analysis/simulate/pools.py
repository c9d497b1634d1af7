"""Engine pools in event time: what a cache holds while requests run, wait, finish and are preempted.

The exact pass touches a request's blocks on arrival. An engine pins them while the request runs, and
places them in its order of eviction when it finishes. Each engine's own rules are a `Pool`
(`reference_pool`, `sglang_pool`); the loop here is common to all of them: a
request arrives, waits until it may start, samples its reply, and finishes. Where nothing overlaps a
pool equals the exact LRU pass to the token, SGLang's but for the whole nodes that it evicts.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from loadkit.analysis.events import kept_chains
from loadkit.core.errors import CannotMeasure
from loadkit.core.trace import UNKNOWN, FloatArray, IntArray, Trace

NO_ROOM, IN_FLIGHT = -1, -2
WITHOUT_END = 2**62  # pages of an infinite cache
MAX_STEPS = 16  # of a reply whose token times are not known


class RuledLog(Protocol):
    """A log and how many leading blocks of each prompt may hit (n,); a `Reuse` is one."""

    @property
    def trace(self) -> Trace: ...

    @property
    def max_hit_blocks(self) -> IntArray: ...


class Chains:
    """What requests hold, by row: ids of prompt and reply, and pages by how much is computed.

    Ids of blocks that the log counts as whole may hit (a log of ids gives one to a partial tail);
    an unfinished page has none. A log without replies has requests that end with their prompts.
    """

    def __init__(self, log: RuledLog):
        trace = log.trace
        self.block_size = trace.block_size
        self.may_hit: list[int] = log.max_hit_blocks.tolist()
        self.num_prompt: list[int] = np.diff(trace.block_ptr).tolist()
        self._ptr, self._ids = kept_chains(trace)
        self._prompt_ptr, self._prompt_ids = trace.block_ptr, trace.block_ids
        self.num_kept: list[int] = np.diff(self._ptr).tolist()
        self._partial = None if trace.partial_page is None else trace.partial_page.tolist()
        self.prompt_tokens: list[int] = trace.prompt_tokens.tolist()
        self.reply_tokens: list[int] = _reply_tokens(trace).tolist()

    def __len__(self) -> int:
        return len(self.num_prompt)

    def prompt(self, row: int) -> IntArray:
        """Ids of the prompt's blocks."""
        return self._prompt_ids[self._prompt_ptr[row] : self._prompt_ptr[row + 1]]

    def kept(self, row: int) -> IntArray:
        """Ids of all blocks that prompt and reply fill."""
        return self._ids[self._ptr[row] : self._ptr[row + 1]]

    def num_full(self, row: int, num_computed: int) -> int:
        """Whole blocks once so many tokens of the reply are computed beside the prompt."""
        tokens = self.prompt_tokens[row] + num_computed
        full = max(self.num_prompt[row], tokens // self.block_size)
        return min(full, self.num_kept[row])

    def has_partial(self, row: int, num_computed: int) -> bool:
        """Whether an unfinished page is in use then; a log of ids knows of none."""
        if self._partial is None:
            return False
        return (self.prompt_tokens[row] + num_computed) % self.block_size != 0

    def leaves_partial(self, row: int) -> bool:
        """Whether an unfinished page stays in the cache after the end."""
        return self._partial is not None and bool(self._partial[row])

    def num_pages(self, row: int, num_computed: int) -> int:
        """Whole blocks and the unfinished page."""
        return self.num_full(row, num_computed) + self.has_partial(row, num_computed)

    def last_computed(self, row: int) -> int:
        """Reply tokens computed in the end: all but the last one sampled."""
        return max(0, self.reply_tokens[row] - 1)


def _reply_tokens(trace: Trace) -> IntArray:
    """Sampled tokens (n,) as far as they matter to the cache; at least 1.

    At least as many as their blocks and pages show: a text lacks the token that ended it, which was
    sampled too.
    """
    if trace.resident_ptr is None:
        return np.ones(trace.num_requests, np.int64)
    kept = np.diff(trace.resident_ptr) * trace.block_size
    filled = np.maximum(kept - trace.prompt_tokens, 0) + 1
    if trace.partial_page is not None:
        filled += trace.partial_page & (kept >= trace.prompt_tokens)
    known = trace.output_tokens != UNKNOWN
    return np.where(known, np.maximum(trace.output_tokens, filled), filled)


class Pool(Protocol):
    """One engine's cache. Rows are the log's; `num_sampled` counts tokens of the reply.

    preempted_first: who was preempted is the first to start again, else the last.
    """

    preempted_first: bool

    def admit(self, row: int, num_sampled: int) -> int:
        """Start a request, again after a preemption. Returns the blocks that hit; NO_ROOM: it waits,
        and those behind it; IN_FLIGHT: it waits for a block being computed, and is passed."""
        ...

    def sampled(self, row: int, num_sampled: int) -> bool:
        """The reply has so many tokens (1: the prompt is computed). False: there is no room for the
        next one, somebody must be preempted."""
        ...

    def victim(self, running: Sequence[int], num_sampled: Mapping[int, int]) -> int:
        """Who of the running ones (in order of their start) is preempted."""
        ...

    def preempt(self, row: int, num_sampled: int) -> None:
        """Take everything away from a running request."""
        ...

    def finish(self, row: int) -> None:
        """The last token is there: the request's blocks take their place in the order."""
        ...

    def fits(self, row: int) -> bool:
        """Whether the request could ever run."""
        ...


@dataclass(frozen=True, slots=True)
class Times:
    """When requests arrive (n,), have their first and their last token, in seconds.

    observed: the times are those of these very requests on the server that is simulated, however
    long one waited; else a request that waits has its tokens so much later. token_s: when each token
    was seen, by row; None: evenly from the first to the last.
    """

    arrival_s: FloatArray
    first_s: FloatArray
    last_s: FloatArray
    observed: bool = False
    token_s: Sequence[Sequence[float]] | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """A log served. start_s (n,): NaN for those that were refused, as they can never fit."""

    hit_blocks: IntArray
    start_s: FloatArray
    num_refused: int
    num_preemptions: int


def log_times(
    trace: Trace, latency_s: float | None = None, prefill_tokens_per_s: float | None = None
) -> Times:
    """Times of a log's requests; `latency_s` stands for all where the log has none.

    A log does not tell its tokens' times. They are evenly apart, the first one as long after the
    start as the others are from each other, unless a prompt takes its tokens / `prefill_tokens_per_s`;
    where the reply's length is not known, the first one comes at the end. CannotMeasure without
    arrival times, or without latencies from either source.
    """
    if trace.arrival_s is None:
        raise CannotMeasure("overlap needs timestamps, and the log has none")
    latency = np.full(trace.num_requests, latency_s, np.float64)
    if latency_s is None:
        if trace.completed_s is None:
            raise CannotMeasure(
                "overlap needs latencies, and the log has none", remedy="--latency SECONDS for all"
            )
        latency = trace.completed_s - trace.arrival_s
    if prefill_tokens_per_s is None:
        first = latency / np.maximum(trace.output_tokens, 1)
    else:
        first = np.minimum(latency, trace.prompt_tokens / prefill_tokens_per_s)
    return Times(trace.arrival_s, trace.arrival_s + first, trace.arrival_s + latency)


def serve(pool: Pool, chains: Chains, times: Times) -> Served:
    """Serve all requests. What ends or arrives at one instant does so before anything starts."""
    loop = _Loop(pool, chains, times)
    loop.run()
    return Served(loop.hit_blocks, loop.start_s, loop.num_refused, loop.num_preemptions)


_SAMPLED, _FINISHED, _ARRIVED = range(3)


class _Loop:
    def __init__(self, pool: Pool, chains: Chains, times: Times):
        self._pool, self._chains, self._times = pool, chains, times
        self._waiting: deque[int] = deque()
        self._running: dict[int, None] = {}  # in order of their start
        self._sampled: dict[int, int] = {}
        self._started: dict[
            int, int
        ] = {}  # by row, how many starts came before: older events are void
        self._num_starts = 0
        self._end_s: dict[int, float] = {}
        self._events: list[tuple[float, int, int, int, int]] = []
        num = len(chains)
        self.hit_blocks, self.start_s = np.zeros(num, np.int64), np.full(num, np.nan)
        self.num_refused = self.num_preemptions = 0

    def run(self) -> None:
        """At one instant: tokens, in order of their requests' starts; ends; arrivals; starts."""
        arrivals = enumerate(self._times.arrival_s.tolist())
        self._events = [(at, _ARRIVED, row, row, 0) for row, at in arrivals]
        heapq.heapify(self._events)
        while self._events:
            now, kind, start, row, num = heapq.heappop(self._events)
            if kind == _ARRIVED:
                self._waiting.append(row)
            elif row in self._running and self._started[row] == start:
                self._go_on(row, num, now, ends=kind == _FINISHED)
            if not (self._events and self._events[0][0] <= now):
                self._start_waiting(now)

    def _go_on(self, row: int, num: int, now: float, *, ends: bool) -> None:
        if ends:
            self._pool.finish(row)
            del self._running[row]
            return
        self._sampled[row] = num
        while not self._pool.sampled(row, num):
            victim = self._pool.victim(list(self._running), self._sampled)
            self._preempt(victim, now)
            if victim == row:
                return

    def _preempt(self, row: int, now: float) -> None:
        """With the tokens of this very instant; whoever has its last one needs no room any more."""
        started = self._started[row]
        if self._times.token_s is not None:
            self._sampled[row] = bisect_right(self._times.token_s[row], now)
        for at, kind, start, _, num in self._events:
            if kind == _SAMPLED and start == started and at <= now:
                self._sampled[row] = max(self._sampled.get(row, 0), num)
        self._pool.preempt(row, self._sampled.get(row, 0))
        del self._running[row]
        if self._end_s[row] > now:
            self.num_preemptions += 1
            if self._pool.preempted_first:
                self._waiting.appendleft(row)
            else:
                self._waiting.append(row)

    def _start_waiting(self, now: float) -> None:
        passed: list[int] = []
        while self._waiting:
            row = self._waiting.popleft()
            if not self._pool.fits(row):
                self.num_refused += 1
                continue
            hit = self._pool.admit(row, self._sampled.get(row, 0))
            if hit == IN_FLIGHT:
                passed.append(row)
            elif hit == NO_ROOM:
                passed.append(row)
                break
            else:
                self._start(row, hit, now)
        self._waiting.extendleft(reversed(passed))

    def _start(self, row: int, hit: int, now: float) -> None:
        if np.isnan(self.start_s[row]):
            self.start_s[row], self.hit_blocks[row] = now, hit
        self._running[row] = None
        self._started[row] = start = self._num_starts
        self._num_starts += 1
        late = 0.0 if self._times.observed else now - float(self._times.arrival_s[row])
        for num, at in self._steps(row, self._sampled.get(row, 0)):
            heapq.heappush(self._events, (max(now, at + late), _SAMPLED, start, row, num))
        self._end_s[row] = end = max(now, float(self._times.last_s[row]) + late)
        heapq.heappush(self._events, (end, _FINISHED, start, row, 0))

    def _steps(self, row: int, done: int) -> list[tuple[int, float]]:
        """(tokens sampled, when they were), behind the first `done`, which a preempted one keeps."""
        last = self._chains.reply_tokens[row]
        first = min(done + 1, last)
        first_s, last_s = float(self._times.first_s[row]), float(self._times.last_s[row])
        if self._times.token_s is not None:
            seen = self._times.token_s[row]
            size, length = self._chains.block_size, self._chains.prompt_tokens[row]
            rest = {0, 1 % size}  # a block is full, or the next one begins
            nums = (n for n in range(first, last + 1) if (length + n) % size in rest)
            return [(n, seen[min(n, len(seen)) - 1]) for n in sorted({first, last, *nums})]
        step = max(1, -(-(last - first) // MAX_STEPS))
        counts = [*range(first, last, step), last]
        pace_s = (last_s - first_s) / max(last - 1, 1)
        return [(num, first_s + pace_s * (num - 1)) for num in counts]
