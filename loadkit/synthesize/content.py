"""What stands in a block: numbers drawn from (seed, block key, place), so equal keys are equal text.

Nothing of the log enters but the order in which its blocks first occurred.
"""

from __future__ import annotations

import numpy as np

from loadkit.core.mixing import mixed
from loadkit.core.trace import IntArray
from loadkit.synthesize.paths import Plan


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
    bits = mixed(source * size + place, seed) >> np.uint64(11)
    return (bits % np.uint64(num_values)).astype(np.int64)
