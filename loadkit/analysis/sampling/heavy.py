"""Heavy blocks that are always touched together become one node, so that a system prompt of many
blocks is one kept touch a request. Exact: see `analysis.nodes`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from loadkit.core.trace import IntArray

_UNSEEN, _NO_PARENT, _SEVERAL = -3, -2, -1


class HeavyBlocks:
    """Counts each heavy block's touches and looks which heavy block it follows; h = their number."""

    def __init__(self, heavy: IntArray):
        """heavy: sorted ids."""
        self.heavy = heavy
        self._count = np.zeros(len(heavy), np.int64)
        self._parent = np.full(len(heavy), _UNSEEN, np.int64)

    def add(self, num_blocks: IntArray, ids: IntArray) -> None:
        """Count the touches of some rows, `num_blocks[k]` of them in the k-th."""
        index = indices(self.heavy, ids)
        parent = np.concatenate([[_NO_PARENT], index[:-1]])[: len(ids)]
        parent[parent == -1] = _NO_PARENT  # a light one
        starts = np.cumsum(num_blocks) - num_blocks
        parent[starts[num_blocks > 0]] = _NO_PARENT
        found = index >= 0
        self._count += np.bincount(index[found], minlength=len(self.heavy))
        self._follow(index[found], parent[found])

    def merge(self, others: Iterable[HeavyBlocks]) -> None:
        """Add what others counted of the same blocks elsewhere."""
        for other in others:
            self._count += other._count
            seen = np.flatnonzero(other._parent != _UNSEEN)
            self._follow(seen, other._parent[seen])

    def weights(self) -> IntArray:
        """(h,) blocks of the node that a block heads; 0: it is part of its parent's node.

        Ids are chained, so a block with one parent and as many touches has the same touches. An id
        that followed several parents, as no chained id does, stays alone.
        """
        merged = self._parent >= 0
        merged[merged] = self._count[self._parent[merged]] == self._count[merged]
        head = np.where(merged, self._parent, np.arange(len(self.heavy)))
        for _ in range(len(head).bit_length() + 1):  # each round doubles the steps taken
            head = head[head]
        return np.bincount(head, minlength=len(self.heavy)).astype(np.int64)

    def _follow(self, blocks: IntArray, parents: IntArray) -> None:
        new = self._parent[blocks] == _UNSEEN
        self._parent[blocks[new]] = parents[new]
        self._parent[blocks[self._parent[blocks] != parents]] = _SEVERAL


def indices(known: IntArray, ids: IntArray) -> IntArray:
    """(k,) where each id stands among sorted ones; -1 for an id that is not there."""
    if not len(known):
        return np.full(len(ids), -1, np.int64)
    at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    found: IntArray = np.where(known[at] == ids, at, -1)
    return found
