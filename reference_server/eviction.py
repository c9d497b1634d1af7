"""Which idle leaf goes next: touches, scores and the clock, and heaps of scores."""

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

    def __init__(self, policy: Policy, num_blocks: int, *, by_tenant: bool):
        self.policy = policy
        self._leaves = IdleLeaves(num_blocks, by_tenant=by_tenant)
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
    """Leaves that nobody uses: one heap of all and, with `by_tenant`, one of each tenant's besides.

    A node's entry is current while its score and last touch are; stale ones are skipped, and swept
    when they are many.
    """

    def __init__(self, num_blocks: int, *, by_tenant: bool):
        self._max_entries = 2 * num_blocks + 64
        self._by_tenant = by_tenant
        self._all: list[Entry] = []
        self._tenants: dict[bytes, list[Entry]] = {}
        self._num_since_sweep = 0

    def offer(self, leaf: Node) -> None:
        """An idle leaf may be evicted."""
        entry = (leaf.score, leaf.last, leaf)
        heapq.heappush(self._all, entry)
        if self._by_tenant:
            heapq.heappush(self._tenants.setdefault(leaf.tenant, []), entry)
        self._num_since_sweep += 1
        if self._num_since_sweep > self._max_entries:
            self._sweep()

    def pop(self, tenant: bytes | None = None) -> Node | None:
        """The leaf with the lowest (score, last touch), of one tenant or of all; None: no leaf."""
        heap = self._all if tenant is None else self._tenants.get(tenant, [])
        while heap:
            entry = heapq.heappop(heap)
            if _is_current(entry):
                return entry[2]
        return None

    def _sweep(self) -> None:
        self._num_since_sweep = 0
        self._all = _current(self._all)
        tenants = {name: _current(heap) for name, heap in self._tenants.items()}
        self._tenants = {name: heap for name, heap in tenants.items() if heap}


def _current(heap: list[Entry]) -> list[Entry]:
    kept = [entry for entry in heap if _is_current(entry)]
    heapq.heapify(kept)
    return kept


def _is_current(entry: Entry) -> bool:
    score, tick, node = entry
    return is_idle_leaf(node) and node.last == tick and node.score == score


def is_idle_leaf(node: Node) -> bool:
    return node.tier == DEVICE and node.ref == 0 and node.num_children == 0
