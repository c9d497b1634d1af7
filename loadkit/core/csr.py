"""Rows of different lengths in one flat array (CSR): where each begins, and places in the flat."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from loadkit.core.trace import IntArray


def pointers(counts: npt.NDArray[np.integer | np.bool_]) -> IntArray:
    """(n + 1,) where rows with these counts begin, and where the last one ends."""
    ptr = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=ptr[1:])
    return ptr


def places(first: IntArray, counts: IntArray) -> IntArray:
    """first[0], first[0] + 1, ... counts[0] of them, then those of first[1], and so on."""
    ends = np.cumsum(counts)
    flat: IntArray = np.arange(int(counts.sum())) + np.repeat(first - (ends - counts), counts)
    return flat


def depths(counts: IntArray) -> IntArray:
    """0, 1, ... counts[0] of them, then from 0 again for the next row."""
    return places(np.zeros(len(counts), np.int64), counts)
