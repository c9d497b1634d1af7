"""How often the gate is wrong, on a few seeded draws of `gate_rates.py`'s tables."""

from __future__ import annotations

from collections import Counter

import pytest
from gate_rates import judged, regressed

DRAWS = 12


@pytest.mark.parametrize("world", ["flat", "agents", "helpdesk"])
def test_honest_staging_seldom_fails(world: str) -> None:
    """Two draws of one day: 5% of the intervals miss, so more than 2 of 12 are rare (2%)."""
    found = Counter(judged(world, seed, 150, 150, 0.0).verdict for seed in range(DRAWS))
    assert found["FAIL"] <= 2
    assert found["PASS"] >= DRAWS / 2


@pytest.mark.parametrize("world", ["library", "helpdesk"])
def test_a_run_shorter_than_its_log_fails_for_no_cold_cache(world: str) -> None:
    """Two of three such runs used to. Against as short a cold start they are judged again."""
    short = Counter(judged(world, seed, 40, 400, 0.0).verdict for seed in range(4))
    alike = [judged(world, seed, 150, 400, 0.0, cold=True).verdict for seed in range(4)]
    assert short["FAIL"] == 0
    assert alike.count("PASS") >= 3
    assert judged(world, 0, 150, 400, 0.2, cold=True).verdict == "FAIL"


@pytest.mark.parametrize("world", ["evaluations", "agents", "flat"])
@pytest.mark.parametrize("sessions", [40, 150])
def test_ten_points_of_replay_never_pass(world: str, sessions: int) -> None:
    assert "PASS" not in [judged(world, seed, sessions, sessions, 0.1).verdict for seed in range(4)]


def test_the_same_server_is_no_regression_and_a_lost_tenth_is_one() -> None:
    assert [regressed("agents", seed, 150, 0.0) for seed in range(4)] == ["passed"] * 4
    assert [regressed("agents", seed, 150, 0.1) for seed in range(4)] == ["failed"] * 4
