"""Segmented LRU (Karedla et al. 1994)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from reference_server.policies.base import Policy, Scored

# The usual share of the protected segment, e.g. in Caffeine's window TinyLFU.
PROTECTED_SHARE = 0.8


class SLRU(Policy):
    """A block used again while resident is protected (score 1), the others are on probation (0).

    At most PROTECTED_SHARE of the cache is protected; the blocks touched longest ago fall back.
    """

    name = "slru"

    def __init__(self, num_blocks: int = 1, block_size: int = 1):
        super().__init__(num_blocks, block_size)
        self.max_protected = int(PROTECTED_SHARE * num_blocks)
        self._protected: OrderedDict[Scored, None] = OrderedDict()  # touched longest ago first

    def score(self, node: Scored, clock: float) -> float:
        return 1.0 if node in self._protected else 0.0

    def used(self, node: Scored) -> None:
        self._protected[node] = None

    def touched(self, node: Scored) -> None:
        if node in self._protected:
            self._protected.move_to_end(node)

    def fallen(self) -> Sequence[Scored]:
        excess = len(self._protected) - self.max_protected
        return [self._protected.popitem(last=False)[0] for _ in range(excess)]

    def evicted(self, node: Scored) -> None:
        self._protected.pop(node, None)
