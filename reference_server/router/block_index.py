"""Which replica is taken to hold which block: learned from what was routed, and bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from reference_server.router.fleet import Replica

# As in loadkit.forecast.prefix_router: the replicas that took a block last.
MAX_HOLDERS = 64
MAX_INDEX_BLOCKS = 200_000


class BlockIndex:
    """hash -> {replica: stamp}; the block routed longest ago goes first.

    A stamp is the replica's `computed` when it last served the block, which tells how much it has
    computed since, and so whether the block is likely evicted.
    """

    def __init__(self, max_blocks: int = MAX_INDEX_BLOCKS) -> None:
        self._max_blocks = max_blocks
        self._stamps: OrderedDict[int, dict[int, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._stamps)

    def matched(self, blocks: Sequence[int], replicas: Sequence[Replica]) -> dict[int, int]:
        """Leading blocks that each replica is taken to hold, by its index."""
        found = {replica.index: 0 for replica in replicas}
        left = list(replicas)
        for number, block in enumerate(blocks):
            stamps = self._stamps.get(block, {})
            left = [r for r in left if r.index in stamps and r.has_kept(stamps[r.index])]
            if not left:
                break
            for replica in left:
                found[replica.index] = number + 1
        return found

    def ages(self, blocks: Sequence[int], replica: Replica) -> list[int]:
        """Blocks computed since the replica served each leading block that it was ever given."""
        found = []
        for block in blocks:
            stamp = self._stamps.get(block, {}).get(replica.index)
            if stamp is None or stamp < replica.empty_since:
                break
            found.append(replica.computed - stamp)
        return found

    def remember(self, blocks: Sequence[int], replica: Replica) -> None:
        """Tail first, head last: what is dropped is then never the middle of a kept prompt."""
        for block in reversed(blocks):
            stamps = self._stamps.setdefault(block, {})
            stamps.pop(replica.index, None)
            stamps[replica.index] = replica.computed
            if len(stamps) > MAX_HOLDERS:
                del stamps[next(iter(stamps))]
            self._stamps.move_to_end(block)
        while len(self._stamps) > self._max_blocks:
            self._stamps.popitem(last=False)

    def clear(self) -> None:
        self._stamps.clear()
