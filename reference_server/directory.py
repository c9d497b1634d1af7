"""What is known by hash: blocks in any tier, blocks that were evicted, what came after a prefix."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from reference_server.bounded import BoundedSet
from reference_server.continuations import Continuations
from reference_server.kv_events import CLEARED, REMOVED, STORED, KVEvents
from reference_server.node import DEVICE, GONE, TIER_NAMES, Node


class Directory:
    """nodes: by hash, whatever the tier. ghosts: hashes that no tier holds any more, the latest
    `max_ghosts`. events: what entered and left. Unfinished pages are among the continuations only.
    """

    def __init__(self, max_ghosts: int):
        self.nodes: dict[bytes, Node] = {}
        self.ghosts: BoundedSet[bytes] = BoundedSet(max_ghosts)
        self.continuations = Continuations()
        self.events = KVEvents()

    def match(self, hashes: Sequence[bytes]) -> list[Node]:
        """Nodes of the longest prefix of a chain that any tier holds. Touches nothing."""
        matched = []
        for block_hash in hashes:
            node = self.nodes.get(block_hash)
            if node is None:
                break
            matched.append(node)
        return matched

    def num_evicted(self, hashes: Sequence[bytes]) -> int:
        """How many blocks from the start of `hashes` were resident once and were evicted."""
        return sum(1 for _ in itertools.takewhile(self.ghosts.__contains__, hashes))

    def came(self, node: Node) -> None:
        """The block is on the device from now on, new or out of a lower tier."""
        if node.hash is not None and node.hash not in self.nodes:
            self.nodes[node.hash] = node
            self.ghosts.discard(node.hash)
        self.continuations.touch(node)
        self.tell(node)

    def tell(self, node: Node) -> None:
        """The block is in the tier where it is now."""
        if node.hash is not None:
            self.events.add(STORED, node.hash, node.parent_hash, TIER_NAMES[node.tier])

    def forget(self, node: Node) -> None:
        """No tier holds it any more."""
        tier = TIER_NAMES[node.tier] if node.tier >= DEVICE else "device"
        node.tier, node.place = GONE, -1
        self.continuations.discard(node)
        if node.hash is not None and self.nodes.get(node.hash) is node:
            del self.nodes[node.hash]
            self.ghosts.add(node.hash)
            self.events.add(REMOVED, node.hash, node.parent_hash, tier)

    def adopt(self, found: Iterable[Node]) -> None:
        """Blocks that an earlier process left in a tier."""
        for node in found:
            assert node.hash is not None
            self.nodes[node.hash] = node
            self.continuations.touch(node)

    def clear(self) -> None:
        """When all nodes were forgotten: ghosts and continuations, too."""
        self.ghosts.clear()
        self.continuations.clear()
        self.events.add(CLEARED)
