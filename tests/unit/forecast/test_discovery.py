"""The discovery law, by hand where it can be, else against data drawn from a known law."""

from __future__ import annotations

import numpy as np
import pytest

from loadkit.forecast.discovery import RATES, Discovery, discovery, poisson_table


def test_the_law_is_none_without_touches() -> None:
    assert discovery(np.zeros(0, np.int64), np.zeros(0, np.int64)) is None


def test_mass_is_gathered_by_companions() -> None:
    law = discovery(np.array([2, 0, 0, 2]), np.array([10, 1, 2, 5]))
    assert law is not None
    assert law.companions.tolist() == [0, 2]
    assert law.mass.tolist() == [3, 15]
    assert law.lone_share == 3 / 18


def test_half_the_sample_leaves_a_pair_alone_half_the_time() -> None:
    # One companion: it is thinned away with probability 1/2. Three: with 1/8.
    law = Discovery(np.array([1, 3]), np.array([1.0, 1.0]))
    assert law.thinned_share(np.array([0.5]))[0] == pytest.approx((1 / 2 + 1 / 8) / 2)
    assert law.lone_share == 0


def test_what_is_never_shared_stays_alone() -> None:
    law = Discovery(np.array([0]), np.array([5.0]))
    assert law.alpha == 0.5
    assert law.mean_alone(20) > 0.95


def test_what_is_always_shared_has_nothing_to_extrapolate() -> None:
    law = Discovery(np.array([7]), np.array([5.0]))
    assert law.lone_share == 0
    assert law.mean_alone(20) == 1


def drawn_law(rate: float, private: float, seed: int = 1) -> Discovery:
    """20,000 touches: a share of private ones, the rest with Poisson companions."""
    random = np.random.default_rng(seed)
    others = random.poisson(rate, 20_000) * (random.random(20_000) >= private)
    law = discovery(others, np.ones(20_000, np.int64))
    assert law is not None
    return law


@pytest.mark.parametrize(("rate", "private"), [(0.3, 0.0), (1.0, 0.3), (3.0, 0.6)])
def test_poisson_companions_are_extrapolated_by_the_mixture(rate: float, private: float) -> None:
    law = drawn_law(rate, private)
    # The fit stops early, which keeps it smooth: it is some points off, and more the farther it goes.
    x = np.array([1.5, 2.0, 5.0])
    truth = private + (1 - private) * np.exp(-rate * x)
    assert law.lone_share * law.still_alone(x, 1.0) == pytest.approx(truth, abs=0.1)


def test_thinning_the_sample_chooses_the_mixture_for_poisson_companions() -> None:
    assert drawn_law(1.0, 0.3).alpha > 0.8


def test_the_law_lies_between_its_ends_and_never_rises() -> None:
    law = drawn_law(0.5, 0.4)
    shares = law.still_alone(np.array([1, 1.5, 3, 10, 50])).tolist()
    assert shares[0] == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)
    assert law.most_shareable(10) <= law.mean_alone(10) <= 1


def test_poisson_chances_sum_to_one_and_rate_zero_has_no_companion() -> None:
    table = poisson_table(tuple(range(60)))
    few = RATES < 20
    assert table[:, few].sum(axis=0) == pytest.approx(np.ones(few.sum()), abs=1e-9)
    assert table[0, 0] == 1
