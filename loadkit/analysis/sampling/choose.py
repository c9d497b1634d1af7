"""Which blocks are kept: heavy ones all, light ones by a hash of their id.

A block is kept at all its touches or at none (spatial sampling: Waldspurger et al., SHARDS, 2015),
so whether it was seen before is never in doubt. One heavy block more or less, at the weight of a
light one, would move every rate; so blocks of more than a hundredth of what the light sample stands
on are kept for certain.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from loadkit.core.trace import IntArray

BoolArray = npt.NDArray[np.bool_]
HEAVY_SHARE = 0.01
MAX_COUNTED = 1 << 20  # touches held while counting, 8 MB and as much again to sort them
_LEAST_SEEN = 4  # touches counted before a block can be called heavy
# splitmix64 (Steele, Lea, Flood, 2014): the usual constants.
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class TouchCounter:
    """Finds heavy blocks in bounded memory: counts a random part of the touches, all if they fit."""

    def __init__(self, seed: int, max_counted: int = MAX_COUNTED):
        self._random, self._max = np.random.default_rng([seed, 1]), max_counted
        self._share, self._held = 1.0, 0
        self._parts: list[IntArray] = []
        self.num_touches = 0

    def add(self, ids: IntArray) -> None:
        """Count touches."""
        self.num_touches += len(ids)
        if self._share < 1:
            ids = ids[self._random.random(len(ids)) < self._share]
        self._parts.append(ids)
        self._held += len(ids)
        while self._held > self._max:
            self._share /= 2
            self._parts = [part[self._random.random(len(part)) < 0.5] for part in self._parts]
            self._held = sum(map(len, self._parts))

    def heavy(self, rate: float) -> IntArray:
        """Sorted ids of the blocks that a light sample of `rate` must not leave to chance."""
        if not self._parts:
            return np.zeros(0, np.int64)
        ids, counts = np.unique(np.concatenate(self._parts), return_counts=True)
        limit = max(HEAVY_SHARE * rate * self.num_touches * self._share, _LEAST_SEEN)
        found: IntArray = ids[counts >= limit]
        return found


class Chosen:
    """The blocks that are kept. Light ones fall into `num_groups` parts, each a sample by itself."""

    def __init__(self, rate: float, heavy: IntArray, num_groups: int, seed: int):
        self.heavy, self.num_groups = heavy, num_groups
        self._rate = rate
        self._seed = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]

    def is_heavy(self, ids: IntArray) -> BoolArray:
        """Whether each id is one of the heavy ones."""
        if not len(self.heavy):
            return np.zeros(len(ids), np.bool_)
        at = np.minimum(np.searchsorted(self.heavy, ids), len(self.heavy) - 1)
        found: BoolArray = self.heavy[at] == ids
        return found

    def groups(self, ids: IntArray) -> npt.NDArray[np.int8]:
        """-2 left out, -1 heavy, else the group of a light block that is kept."""
        # The top 53 bits as a fraction of 1, in which the kept ones fill [0, rate) evenly.
        fraction = (_mixed(ids, self._seed) >> np.uint64(11)) * 2.0**-53
        group = np.floor(fraction / self._rate * self.num_groups)
        group[fraction >= self._rate] = -2
        group[self.is_heavy(ids)] = -1
        found: npt.NDArray[np.int8] = group.astype(np.int8)
        return found


def _mixed(ids: IntArray, seed: np.uint64) -> npt.NDArray[np.uint64]:
    state = ids.astype(np.uint64) ^ seed
    state = (state ^ (state >> np.uint64(30))) * np.uint64(_MIX_1)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(_MIX_2)
    return state ^ (state >> np.uint64(31))
