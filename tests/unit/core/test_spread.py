"""The error of a ratio over sessions, and how surely it is known."""

from __future__ import annotations

import numpy as np
import pytest

from loadkit.core.spread import Spread, of_difference, spread_of


def test_equal_sessions_have_the_error_of_a_mean() -> None:
    """Ten sessions of 100 tokens: half hit 40, half 60. sd / sqrt(n) = 0.10541 / sqrt(10)."""
    found = spread_of(np.tile([40.0, 60.0], 5), np.full(10, 100.0))
    assert found is not None
    assert found.error == pytest.approx(0.105409 / np.sqrt(10), rel=1e-4)
    assert found.freedom == 9, "a kurtosis of 1: the spread is known as surely as it can be"


def test_a_few_heavy_sessions_leave_little_freedom() -> None:
    whole = np.array([1000.0, *[10.0] * 39])
    found = spread_of(whole * np.array([0.9, *[0.1, 0.3] * 19, 0.2]), whole)
    assert found is not None
    assert found.freedom == pytest.approx(2.1, abs=0.15), "one session of 40 is nearly all of it"


def test_one_session_or_none_has_no_spread() -> None:
    assert spread_of(np.array([1.0]), np.array([2.0])) is None
    assert spread_of(np.array([1.0, 0.0]), np.array([2.0, 0.0])) is None
    assert spread_of(np.array([1.0, 1.0]), np.array([2.0, 2.0])) == Spread(0.0, 1)


def test_the_errors_of_two_draws_add_in_squares_and_the_less_sure_one_counts_more() -> None:
    both = of_difference(Spread(0.03, 10), Spread(0.04, 20))
    assert both.error == pytest.approx(0.05)
    assert both.freedom == pytest.approx(0.05**4 / (0.03**4 / 10 + 0.04**4 / 20))
    assert of_difference(Spread(0.0, 9), Spread(0.05, 20)).freedom == pytest.approx(20)
