"""Which idle leaf goes next: heaps of scores, one a tenant, with stale entries skipped."""

from __future__ import annotations

import heapq

from reference_server.node import DEVICE, Node

Entry = tuple[float, int, Node]


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
    idle = node.tier == DEVICE and node.ref == 0 and node.num_children == 0
    return idle and node.last == tick and node.score == score
