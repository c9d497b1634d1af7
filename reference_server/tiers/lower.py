"""The tiers below the device: exclusive, least recently used, each hands its oldest to the next.

A block lives in one tier. What the device evicts becomes the most recent entry of the first tier
below; a hit anywhere brings the block back to the device. Under LRU the tiers together hold what
one cache of their summed size holds (as `loadkit analyze --tiers` simulates).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from reference_server.node import DEVICE, DISK, GONE, TIER_NAMES, Node
from reference_server.tiers.base import Pages, Slab

SPARE_SLOTS = 1  # a block that leaves holds its slot until it is read; its successor needs one


class Tier:
    """One tier's entries, oldest first, and its free slots."""

    def __init__(self, level: int, slab: Slab, capacity: int):
        if slab.num_slots < capacity + SPARE_SLOTS:
            raise ValueError("a tier needs one slot more than its capacity")
        self.level, self.slab, self.capacity = level, slab, capacity
        self.entries: OrderedDict[Node, None] = OrderedDict()
        self.free = list(range(slab.num_slots - 1, -1, -1))

    def put(self, node: Node, payload: Any) -> bool:
        slot = self.free.pop()
        if not self.slab.put(slot, node, payload):
            self.free.append(slot)
            return False
        node.tier, node.place = self.level, slot
        self.entries[node] = None
        return True

    def adopt(self) -> list[Node]:
        """What an earlier process left in the slab."""
        found = self.slab.found()[-self.capacity :]
        for node in found:
            self.free.remove(node.place)
            self.entries[node] = None
        return found


class LowerTiers:
    """`gone(node)` is called for what leaves the last tier, or could not be stored or read,
    `came(node)` for what entered a tier."""

    def __init__(
        self,
        tiers: Sequence[Tier] = (),
        pages: Pages | None = None,
        gone: Callable[[Node], None] = lambda node: None,
        came: Callable[[Node], None] = lambda node: None,
    ):
        self.tiers, self.pages, self.gone, self.came = tiers, pages, gone, came
        self._of_level = {tier.level: tier for tier in tiers}

    def demote(self, node: Node) -> None:
        """The device gives up this block; its page is read before this returns."""
        if self.pages is None or not self.tiers:
            self._drop(node)
            return
        try:
            payload = self.pages.read(node.place)
        except RuntimeError:  # the device's fault: this block is lost, the next step will tell
            payload = None
        self._push(0, node, payload)

    def _push(self, index: int, node: Node, payload: Any) -> None:
        if payload is None:
            self._drop(node)
            return
        tier = self.tiers[index]
        if len(tier.entries) >= tier.capacity:
            self._spill(index)
        if tier.put(node, payload):
            self.came(node)
        else:
            self._drop(node)

    def _spill(self, index: int) -> None:
        tier = self.tiers[index]
        oldest, _ = tier.entries.popitem(last=False)
        if index + 1 == len(self.tiers):
            tier.free.append(oldest.place)
            self._drop(oldest)
        else:
            self._push(index + 1, oldest, self._take(tier, oldest, oldest.place))

    def _take(self, tier: Tier, node: Node, slot: int) -> Any | None:
        """The payload in a slot that is free from now on: use it before anything is put."""
        tier.free.append(slot)
        return tier.slab.get(slot, node)

    def _drop(self, node: Node) -> None:
        node.tier, node.place = GONE, -1
        self.gone(node)

    def leave(self, nodes: Iterable[Node]) -> None:
        """These blocks are on their way up: they fill their tiers no more, but keep their slots."""
        for node in nodes:
            self._of_level[node.tier].entries.pop(node)

    def load(self, node: Node, page: int) -> bool:
        """Bring a block that has left its tier to a device page. False: it was damaged, is gone."""
        payload = self._take(self._of_level[node.tier], node, node.place)
        if payload is None or not self._write(page, payload):
            self._drop(node)
            return False
        node.tier, node.place = DEVICE, page
        return True

    def _write(self, page: int, payload: Any) -> bool:
        assert self.pages is not None
        try:
            self.pages.write(page, payload)
        except RuntimeError:
            return False
        return True

    def forget(self, node: Node) -> None:
        """Its K/V is on the device anyway, or not wanted any more."""
        tier = self._of_level[node.tier]
        tier.entries.pop(node, None)
        tier.free.append(node.place)

    def prefetch(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            if node.tier in self._of_level:
                self._of_level[node.tier].slab.prefetch(node.place, node)

    def found(self) -> list[Node]:
        return [node for tier in self.tiers for node in tier.adopt()]

    @property
    def outlives_the_process(self) -> bool:
        return any(tier.level == DISK for tier in self.tiers)

    def drain(self) -> None:
        """Hand everything on to the last tier, oldest first."""
        for index, tier in enumerate(self.tiers[:-1]):
            while tier.entries:
                self._spill(index)

    def clear(self) -> None:
        for tier in self.tiers:
            for node in list(tier.entries):
                self.forget(node)
                self._drop(node)

    def sizes(self) -> dict[str, int]:
        """Entries by tier name."""
        return {TIER_NAMES[tier.level]: len(tier.entries) for tier in self.tiers}
