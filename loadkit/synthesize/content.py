"""What stands in a block: numbers drawn from (seed, block key, place), so equal keys are equal text.

Nothing of the log enters but the order in which its blocks first occurred.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from loadkit.core.trace import IntArray
from loadkit.synthesize.paths import Plan

# splitmix64 (Steele, Lea, Flood, 2014): the usual constants.
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def draws(plan: Plan, keys: IntArray, num_tokens: int, num_values: int, seed: int) -> IntArray:
    """(num_tokens,) values in 0..num_values-1 for the tokens of a path with these block keys."""
    size = plan.block_size
    source = np.repeat(keys, size)[:num_tokens]
    if plan.tails:
        for index, key in enumerate(keys.tolist()):
            start = index * size
            for tokens, common in reversed(plan.tails.get(key, ())):
                source[start : start + tokens] = common
    place = np.arange(num_tokens) % size
    mixed = _mixed(source * size + place, seed) >> np.uint64(11)
    return (mixed % np.uint64(num_values)).astype(np.int64)


def _mixed(values: IntArray, seed: int) -> npt.NDArray[np.uint64]:
    state = (values.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
    state += np.uint64(_seed_word(seed))
    state = (state ^ (state >> np.uint64(30))) * np.uint64(_MIX_1)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(_MIX_2)
    return state ^ (state >> np.uint64(31))


def _seed_word(seed: int) -> int:
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
