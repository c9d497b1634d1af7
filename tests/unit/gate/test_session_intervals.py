"""Intervals by sessions: values by hand, and how often they hold."""

from __future__ import annotations

import numpy as np
import pytest

from loadkit.gate.sessions import apart, difference, ratio, t_quantile, wilson


@pytest.mark.parametrize(
    ("confidence", "freedom", "value"),
    [(0.95, 5, 2.571), (0.95, 9, 2.262), (0.95, 29, 2.045), (0.90, 19, 1.729), (0.99, 60, 2.660)],
)
def test_quantiles_are_those_of_students_table(
    confidence: float, freedom: int, value: float
) -> None:
    assert t_quantile(confidence, freedom) == pytest.approx(value, rel=1.5e-3)


def test_leaving_out_one_session_at_a_time_by_hand() -> None:
    # 1/2, 2/2, 0/2 hit: the rate is 3/6; without one 2/4, 1/4, 3/4; variance 2/3 * (2 * 1/16)
    found = ratio(np.array([1.0, 2.0, 0.0]), np.array([2.0, 2.0, 2.0]), 0.95)
    assert found is not None
    assert found.value == 0.5
    assert found.half_width == pytest.approx(t_quantile(0.95, 2) * (1 / 12) ** 0.5)


def test_one_session_has_a_rate_but_no_interval_and_none_has_neither() -> None:
    single = ratio(np.array([1.0]), np.array([4.0]), 0.95)
    assert single is not None
    assert (single.value, single.low, single.sessions) == (0.25, None, 1)
    assert ratio(np.array([]), np.array([]), 0.95) is None


def test_many_requests_of_one_session_count_as_one_witness() -> None:
    # the same 100 requests: as 100 sessions sure to 10 points, as 4 sessions not sure at all
    hits = np.array([1.0, 0.0, 1.0, 0.0]).repeat(25)
    apart_ = ratio(hits, np.ones(100), 0.95)
    together = ratio(np.array([25.0, 0.0, 25.0, 0.0]), np.full(4, 25.0), 0.95)
    assert apart_ is not None and apart_.half_width is not None  # noqa: PT018
    assert together is not None and together.half_width is not None  # noqa: PT018
    assert apart_.half_width == pytest.approx(0.1, abs=0.001)
    assert together.half_width > 0.8


def test_intervals_hold_about_as_often_as_they_say() -> None:
    """2,000 draws of 20 sessions of unequal length; the truth is E[hit] / E[prompt]."""
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(2000):
        prompts = rng.lognormal(6, 0.8, 20)
        found = ratio(prompts * rng.beta(2, 2, 20), prompts, 0.95)
        assert found is not None and found.low is not None and found.high is not None  # noqa: PT018
        held += found.low <= 0.5 <= found.high
    assert 0.92 < held / 2000 < 0.97


def test_what_both_runs_share_cancels_in_a_paired_difference() -> None:
    rng = np.random.default_rng(7)
    whole, own = np.full(30, 100.0), rng.uniform(10, 90, 30)
    old, new = (own, whole), (own - 3.0, whole)
    paired = difference(new, old, 0.95)
    sides = [ratio(*side, 0.95) for side in (new, old)]
    assert paired is not None and sides[0] is not None and sides[1] is not None  # noqa: PT018
    assert paired.value == pytest.approx(-0.03)
    assert paired.half_width == pytest.approx(0, abs=1e-12)
    unpaired = apart(sides[0], sides[1], 0.95)
    assert unpaired.value == pytest.approx(-0.03)
    assert unpaired.half_width == pytest.approx(2**0.5 * (sides[0].half_width or 0))


def test_wilsons_interval_at_the_ends_by_hand() -> None:
    low, high = wilson(1.0, 10, 0.95)  # 1 / (1 + z^2 / n)
    assert (low, high) == (pytest.approx(1 / (1 + 1.95996**2 / 10), rel=1e-4), 1.0)
    assert wilson(0.0, 10, 0.95)[0] == pytest.approx(0, abs=1e-12)
