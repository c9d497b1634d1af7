"""Rows of 2, 0 and 3 things in one flat array."""

from __future__ import annotations

import numpy as np

from loadkit.core.csr import depths, places, pointers

COUNTS = np.array([2, 0, 3])


def test_pointers_stand_before_each_row_and_after_the_last() -> None:
    assert pointers(COUNTS).tolist() == [0, 2, 2, 5]
    assert pointers(np.array([True, False])).tolist() == [0, 1, 1]
    assert pointers(np.zeros(0, np.int64)).tolist() == [0]


def test_places_go_up_from_the_first_of_each_row() -> None:
    assert places(np.array([10, 99, 4]), COUNTS).tolist() == [10, 11, 4, 5, 6]


def test_depths_begin_again_in_each_row() -> None:
    assert depths(COUNTS).tolist() == [0, 1, 0, 1, 2]
