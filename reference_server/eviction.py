"""Which idle leaf goes next: touches, scores and the clock, and heaps of scores, one a tenant."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Sequence
from typing import cast

from reference_server.node import DEVICE, Node
from reference_server.policies import Policy

Entry = tuple[float, int, Node]


class EvictionOrder:
    """What a policy makes of uses and touches. See policies.base for scores and the clock."""

    def __init__(self, policy: Policy, num_blocks: int):
        self.policy = policy
        self._leaves = IdleLeaves(num_blocks)
        self._ticks = itertools.count(1)
        self._clock = self._next_clock = 0.0

    def use(self, nodes: Iterable[Node], *, is_new_prompt: bool) -> None:
        """A request uses these blocks of earlier ones: count it once a request."""
        for node in nodes:
            node.num_uses += 1
            node.num_prompts += is_new_prompt
            self.policy.used(node)

    def touch(self, nodes: Sequence[Node]) -> None:
        """A request's chain becomes most recent, tail first, so that a parent outlives its child,
        and gets its scores anew."""
        for node in reversed(nodes):
            node.last = next(self._ticks)
            self.policy.touched(node)
            node.score = self.policy.score(node, self._clock)
        for fallen in self.policy.fallen():
            node = cast(Node, fallen)
            node.last, node.score = next(self._ticks), self.policy.score(node, self._clock)
            self.offer(node)

    def enter_dead(self, node: Node) -> None:
        """An unfinished page, which no policy values."""
        node.last, node.score = next(self._ticks), self._clock
        self._leaves.offer(node)

    def offer(self, node: Node) -> None:
        """The node may be evicted if nobody uses it and it has no child on the device."""
        if is_idle_leaf(node):
            self._leaves.offer(node)

    def pop(self, tenant: bytes | None = None, *, settle: bool = True) -> Node | None:
        """The leaf that goes first, of one tenant or of all; None: there is no idle leaf.

        Its score raises the clock, with `settle` at once, else when `settle` is called.
        """
        leaf = self._leaves.pop(tenant)
        if leaf is not None and self.policy.ages:
            self._next_clock = max(self._next_clock, leaf.score)
            if settle:
                self.settle()
        return leaf

    def settle(self) -> None:
        self._clock = self._next_clock

    def reset_clock(self) -> None:
        self._clock = self._next_clock = 0.0


class IdleLeaves:
    """Leaves that nobody uses. A node's entry is current while its score and last touch are."""

    def __init__(self, num_blocks: int):
        self._max_entries = 2 * num_blocks + 64
        self._heaps: dict[bytes, list[Entry]] = {}
        self._num = 0

    def offer(self, leaf: Node) -> None:
        """An idle leaf may be evicted. Stale entries are swept when they are many."""
        heap = self._heaps.setdefault(leaf.tenant, [])
        heapq.heappush(heap, (leaf.score, leaf.last, leaf))
        self._num += 1
        if self._num > self._max_entries:
            self._sweep()

    def pop(self, tenant: bytes | None = None) -> Node | None:
        """The leaf with the lowest (score, last touch), of one tenant or of all; None: no leaf."""
        tenants = list(self._heaps) if tenant is None else [tenant]
        tops = [top for name in tenants if (top := self._top(name)) is not None]
        if not tops:
            return None
        lowest = min(tops)[2]
        heapq.heappop(self._heaps[lowest.tenant])
        self._num -= 1
        return lowest

    def _top(self, tenant: bytes) -> Entry | None:
        heap = self._heaps.get(tenant, [])
        while heap:
            if _is_current(heap[0]):
                return heap[0]
            heapq.heappop(heap)
            self._num -= 1
        self._heaps.pop(tenant, None)
        return None

    def _sweep(self) -> None:
        kept = {name: [e for e in heap if _is_current(e)] for name, heap in self._heaps.items()}
        self._heaps = {name: heap for name, heap in kept.items() if heap}
        for heap in self._heaps.values():
            heapq.heapify(heap)
        self._num = sum(map(len, self._heaps.values()))


def _is_current(entry: Entry) -> bool:
    score, tick, node = entry
    return is_idle_leaf(node) and node.last == tick and node.score == score


def is_idle_leaf(node: Node) -> bool:
    return node.tier == DEVICE and node.ref == 0 and node.num_children == 0
