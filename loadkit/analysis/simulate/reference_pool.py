"""The reference server's pool (`reference_server.block_tree`), of one device tier and LRU.

- A request is admitted if its whole prompt fits beside what running requests hold: what is there is
  pinned, room for the rest is made at once. One whose next block another request computes just now
  waits for it, and is passed.
- Blocks can be hit as soon as they are full; those of replies need room then, and with none the
  youngest running request is preempted. Unfinished blocks of running requests take no room.
- At the finish an unfinished block's page stays, of use to nobody, as the oldest of what the request
  leaves; then its blocks from last to first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from loadkit.analysis.simulate.pools import IN_FLIGHT, NO_ROOM, WITHOUT_END, Chains


class ReferencePool:
    """Idle blocks in order of their last use, pins of the others. Unfinished pages have
    names below 0."""

    preempted_first = True

    def __init__(self, chains: Chains, capacity: int | None):
        self._chains = chains
        self._capacity = WITHOUT_END if capacity is None else capacity
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._pins: dict[int, int] = {}
        self._reserved = 0
        self._filling: dict[int, int] = {}  # block -> who computes it
        self._held: dict[int, list[int]] = {}  # published and pinned, by row
        self._num_reserved_end: dict[int, int] = {}
        self._num_dead = 0

    def fits(self, row: int) -> bool:
        return self._chains.num_kept[row] <= self._capacity

    def admit(self, row: int, num_sampled: int) -> int:
        """All or nothing: a request that is admitted can compute its prompt, and, after a
        preemption, what it had said."""
        chain = self._chains.kept(row).tolist()[: self._chains.num_full(row, num_sampled)]
        matched = next((k for k, block in enumerate(chain) if not self._has(block)), len(chain))
        most = min(self._may_hit(row, num_sampled), len(chain))
        if matched < most and chain[matched] in self._filling:
            return IN_FLIGHT
        missing = len(chain) - matched
        idle = sum(block in self._idle for block in chain[:matched])
        if len(self._pins) + idle + self._reserved + missing > self._capacity:
            return NO_ROOM
        for block in chain[:matched]:
            self._pin(block)
        self._reserved += missing
        self._make_room()
        for block in chain[matched:]:
            self._filling.setdefault(block, row)
        self._held[row], self._num_reserved_end[row] = chain[:matched], len(chain)
        return min(matched, most)

    def sampled(self, row: int, num_sampled: int) -> bool:
        """Publish what is full: all tokens but the one just sampled are computed."""
        held, kept = self._held[row], self._chains.kept(row)
        while len(held) < self._chains.num_full(row, num_sampled - 1):
            block, reserved = int(kept[len(held)]), len(held) < self._num_reserved_end[row]
            if reserved:
                self._reserved -= 1
            elif not self._has(block) and not self._room_for_one():
                return False
            self._pin(block)
            held.append(block)
            self._stop_filling(block, row)
        return True

    def victim(self, running: Sequence[int], num_sampled: Mapping[int, int]) -> int:
        """The youngest."""
        return running[-1]

    def preempt(self, row: int, num_sampled: int) -> None:
        computed = num_sampled - 1
        self._release(row, partial=computed >= 0 and self._chains.has_partial(row, computed))

    def finish(self, row: int) -> None:
        self._release(row, partial=self._chains.leaves_partial(row))

    def _release(self, row: int, *, partial: bool) -> None:
        held, end = self._held.pop(row), self._num_reserved_end.pop(row)
        for block in self._chains.kept(row)[len(held) : end].tolist():
            self._stop_filling(block, row)
            self._reserved -= 1
        if partial and self._room_for_one():
            self._num_dead += 1
            self._idle[-self._num_dead] = None
        for block in reversed(held):
            self._pins[block] -= 1
            if not self._pins[block]:
                del self._pins[block]
                self._idle[block] = None

    def _may_hit(self, row: int, num_sampled: int) -> int:
        if not num_sampled:
            return self._chains.may_hit[row]
        tokens = self._chains.prompt_tokens[row] + num_sampled
        return (tokens - 1) // self._chains.block_size

    def _has(self, block: int) -> bool:
        return block in self._idle or block in self._pins

    def _pin(self, block: int) -> None:
        self._idle.pop(block, None)
        self._pins[block] = self._pins.get(block, 0) + 1

    def _stop_filling(self, block: int, row: int) -> None:
        if self._filling.get(block) == row:
            del self._filling[block]

    def _room_for_one(self) -> bool:
        """Room for one more page; an idle block goes for it."""
        if len(self._idle) + len(self._pins) + self._reserved < self._capacity:
            return True
        if self._idle:
            self._idle.popitem(last=False)
        return len(self._idle) + len(self._pins) + self._reserved < self._capacity

    def _make_room(self) -> None:
        while self._idle and len(self._idle) + len(self._pins) + self._reserved > self._capacity:
            self._idle.popitem(last=False)
