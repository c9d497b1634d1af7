"""Which blocks are kept: heavy ones all, light ones by a hash of their id.

A block is kept at all its touches or at none (spatial sampling: Waldspurger et al., SHARDS, 2015),
so whether it was seen before is never in doubt. One heavy block more or less, at the weight of a
light one, would move every rate; so blocks of more than a hundredth of what the light sample stands
on are kept for certain.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from loadkit.analysis.sampling.heavy import indices
from loadkit.core.trace import BoolArray, IntArray

HEAVY_SHARE = 0.01
MAX_COUNTED = 1 << 20  # touches held while counting, 16 MB and 8 MB more to sort them
_LEAST_SEEN = 4  # touches counted before a block can be called heavy
# splitmix64 (Steele, Lea, Flood, 2014): the usual constants.
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class TouchCounter:
    """Finds heavy blocks in bounded memory: counts a random part of the touches, all if they fit.

    Which part depends on where the touches stand in the log and not on who counts them: shards that
    are counted apart and put together give what one counter of all would.
    """

    def __init__(self, seed: int, max_counted: int = MAX_COUNTED):
        self._seed, self._max = seed, max_counted
        self._halvings, self._held = 0, 0
        self._ids: list[IntArray] = []
        self._drawn: list[npt.NDArray[np.uint64]] = []
        self.num_touches = 0

    def add(self, ids: IntArray, positions: npt.NDArray[np.uint64]) -> None:
        """Count touches, each with a number of its own."""
        self.num_touches += len(ids)
        self._take(ids, mixed(positions, self._seed))

    def merge(self, other: TouchCounter) -> None:
        """Count what another counter with the same seed did."""
        self.num_touches += other.num_touches
        while self._halvings < other._halvings:
            self._halve()
        for ids, drawn in zip(other._ids, other._drawn, strict=True):
            self._take(ids, drawn)

    def heavy(self, rate: float) -> IntArray:
        """Sorted ids of the blocks that a light sample of `rate` must not leave to chance."""
        if not self._ids:
            return np.zeros(0, np.int64)
        ids, counts = np.unique(np.concatenate(self._ids), return_counts=True)
        share = 0.5**self._halvings
        limit = max(HEAVY_SHARE * rate * self.num_touches * share, _LEAST_SEEN)
        found: IntArray = ids[counts >= limit]
        return found

    def _take(self, ids: IntArray, drawn: npt.NDArray[np.uint64]) -> None:
        low = self._low(drawn)
        self._ids.append(ids[low])
        self._drawn.append(drawn[low])
        self._held += len(self._ids[-1])
        while self._held > self._max:
            self._halve()

    def _halve(self) -> None:
        self._halvings += 1
        low = [self._low(drawn) for drawn in self._drawn]
        self._ids = [ids[some] for ids, some in zip(self._ids, low, strict=True)]
        self._drawn = [drawn[some] for drawn, some in zip(self._drawn, low, strict=True)]
        self._held = sum(map(len, self._ids))

    def _low(self, drawn: npt.NDArray[np.uint64]) -> BoolArray:
        """Whether each number is in the lowest 2^-halvings of all."""
        if self._halvings == 0:
            return np.ones(len(drawn), np.bool_)
        found: BoolArray = drawn >> np.uint64(64 - self._halvings) == 0
        return found


class Chosen:
    """The blocks that are kept. Light ones fall into `num_groups` parts, each a sample by itself."""

    def __init__(
        self,
        rate: float,
        heavy: IntArray,
        num_groups: int,
        seed: int,
        weights: IntArray | None = None,
    ):
        """weights: what `HeavyBlocks` found of the heavy ones; None: each is a node."""
        self.heavy, self.num_groups = heavy, num_groups
        self.weights = np.ones(len(heavy), np.int64) if weights is None else weights
        self._rate = rate
        self._seed = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])

    def groups(self, ids: IntArray) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int32]]:
        """(groups, weights): -2 left out, -1 heavy, else the group of a light block that is kept.

        Weights are blocks of a node; 0 for heavy blocks that are in their parent's node.
        """
        # The top 53 bits as a fraction of 1, in which the kept ones fill [0, rate) evenly.
        fraction = (mixed(ids.view(np.uint64), self._seed) >> np.uint64(11)) * 2.0**-53
        group = np.floor(fraction / self._rate * self.num_groups)
        group[fraction >= self._rate] = -2
        index = indices(self.heavy, ids)
        heavy = index >= 0
        group[heavy] = -1
        weight = np.ones(len(ids), np.int32)
        weight[heavy] = self.weights[index[heavy]]
        return group.astype(np.int8), weight


def mixed(values: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint64]:
    """Each value with all its bits stirred, differently for every seed."""
    state = values ^ np.uint64(seed)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(_MIX_1)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(_MIX_2)
    return state ^ (state >> np.uint64(31))
