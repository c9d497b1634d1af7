"""Numbers that look random and are a function of a number and a seed: equal in, equal out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from loadkit.core.trace import IntArray

# splitmix64 (Steele, Lea, Flood, 2014): the usual constants.
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def mixed(values: IntArray, seed: int) -> npt.NDArray[np.uint64]:
    """64 bits for each value, of any shape; different values have different bits."""
    word = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
    state = (values.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
    state += np.uint64(word)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(_MIX_1)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(_MIX_2)
    return state ^ (state >> np.uint64(31))
