"""Is a companion nearer than chance? By hand, and on draws with and without bursts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from loadkit.forecast.bursts import chance_of_nearness, false_discovery_rate


def nearness(at: float, distance: float, companions: int) -> float:
    """Among 101 sessions that start at 0, 1, ... 100 s."""
    found = chance_of_nearness(
        np.arange(101.0), np.array([at]), np.array([distance]), np.array([companions])
    )
    return float(found[0])


def test_one_companion_is_as_near_as_the_share_of_sessions_that_near() -> None:
    # Within 5 s of second 50 start 10 of the 100 other sessions; at the edge only 5 do.
    assert nearness(50, 5, 1) == pytest.approx(0.1)
    assert nearness(0, 5, 1) == pytest.approx(0.05)


def test_all_of_a_few_companions_must_be_near() -> None:
    assert nearness(50, 25, 2) == pytest.approx(0.5**2)
    assert nearness(50, 25, 8) == pytest.approx(0.5**8)


def test_of_many_companions_eight_must_be_near() -> None:
    fewer_than_eight = sum(math.comb(20, j) for j in range(8)) / 2**20
    assert nearness(50, 25, 20) == pytest.approx(1 - fewer_than_eight)


def test_even_p_values_are_all_chance() -> None:
    rate = false_discovery_rate(np.random.default_rng(3).random(2000))
    assert rate.mean() > 0.9


def test_an_excess_of_small_p_values_is_bursts() -> None:
    random = np.random.default_rng(4)
    p_value = np.concatenate([random.random(1000), random.random(1000) * 0.01])
    rate = false_discovery_rate(p_value)
    # Below 0.01 lie 1,000 bursts and about 10 by chance.
    assert rate[p_value < 0.005].max() < 0.05
    assert rate[p_value > 0.5].min() > 0.8


def test_without_large_p_values_everything_is_in_bursts() -> None:
    assert false_discovery_rate(np.linspace(0.01, 0.4, 50)).max() == 0
