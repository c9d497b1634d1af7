"""Forecasts held to synthetic productions: how far off, how often covered, and that bursts matter.

Limits are FORECAST.md's table (mean absolute error in points, over 3, 10, 25 and 200% of
production's distinct blocks) plus one point; several productions are averaged, since one heavy
sample says little. `make validate` prints the wide table.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from trials import capacities_of, rates_at, sample_sessions, session_trial
from worlds import WORLDS, make_world

from loadkit.analysis import analyze
from loadkit.analysis.nodes import node_stream
from loadkit.analysis.weighted import weighted_hits
from loadkit.forecast import forecast
from loadkit.forecast.sample import sample_of
from loadkit.forecast.superpose import superpose, template_of

SEEDS = tuple(range(31, 39))


def mean_error(name: str, sessions: int, **kind: Any) -> float:
    """Points, over productions that are each drawn and sampled anew."""
    errors = []
    for seed in SEEDS:
        production = make_world(name, seed)
        sizes = capacities_of(production)
        sample = sample_sessions(production, sessions / production.num_sessions, seed)
        traffic = production.num_sessions / sample.num_sessions
        template = template_of(sample_of(node_stream(sample)))
        trace = superpose(template, traffic, np.random.default_rng(seed), **kind).stream
        errors.append(weighted_hits(trace, sizes).hit_rates() - rates_at(production, sizes))
    return 100 * float(np.mean(np.abs(errors)))


@pytest.mark.parametrize(
    ("name", "sessions", "table"),
    [
        ("flat", 534, 2.0),
        ("flat", 1094, 1.8),
        ("flat", 2743, 1.0),
        ("steep", 534, 2.0),
        ("steep", 1094, 1.8),
        ("burst", 352, 2.5),
        ("burst", 876, 1.2),
    ],
)
def test_the_mean_error_is_within_a_point_of_the_table(
    name: str, sessions: int, table: float
) -> None:
    assert mean_error(name, sessions) <= table + 1


def test_copies_spread_evenly_fail_where_traffic_is_bursty() -> None:
    assert mean_error("burst", 876, jitter="uniform") > 2 * mean_error("burst", 876)
    assert mean_error("burst", 876, jitter="uniform") > 1.2 + 1


@pytest.mark.parametrize("name", WORLDS)
def test_at_1x_the_forecast_is_the_exact_rate(name: str) -> None:
    trace = make_world(name, 9, 0.1)
    for capacity in (*capacities_of(trace), None):
        exact = analyze(trace, [capacity]).curve[0]
        assert forecast(trace, 1.0, capacity).hit_rate.estimate == exact.hit_rate


@pytest.mark.parametrize("name", WORLDS)
def test_intervals_cover_the_truth(name: str) -> None:
    trials = []
    for seed in SEEDS:
        production = make_world(name, seed, 0.5)
        trials.append(session_trial(production, 500 / production.num_sessions, seed))
    covered = np.concatenate([trial.covered for trial in trials if trial.refused is None])
    assert len(covered) >= 8
    assert covered.mean() >= 0.85
