"""Half widths: the rule by hand, and what the parts react to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from worlds import make_world

from loadkit.analysis.nodes import node_stream
from loadkit.core.trace import FloatArray
from loadkit.forecast.interval import (
    backtest_bias,
    half_sample_error,
    half_width,
    sessions_needed,
)
from loadkit.forecast.sample import sample_of
from loadkit.forecast.superpose import Template, template_of


def template() -> Template:
    return template_of(sample_of(node_stream(make_world("flat", 1, 0.02))))


def always(value: float) -> FloatArray:
    return np.full((2, 1), value)


def test_without_error_a_point_remains() -> None:
    assert half_width(always(0), always(0), 0.9)[0, 0] == pytest.approx(0.01)


def test_chance_is_stretched_and_bias_counts_half() -> None:
    assert half_width(always(0.01), always(0), 0.9)[0, 0] == pytest.approx(0.01 + 0.016)
    assert half_width(always(0), always(0.04), 0.9)[0, 0] == pytest.approx(0.01 + 0.02)
    # 3 and 4 points are 5 together
    both = half_width(always(0.01875), always(0.08), 0.9)[0, 0]
    assert both == pytest.approx(0.05 + 0.7 * 0.01)


def test_what_is_beyond_five_points_counts_less() -> None:
    # 1.6 x 10 points and one are 17, of which 12 are beyond 5
    assert half_width(always(0.1), always(0), 0.9)[0, 0] == pytest.approx(0.05 + 0.7 * 0.12)


def test_more_confidence_is_wider() -> None:
    widths = [float(half_width(always(0.02), always(0), level)[0, 0]) for level in (0.5, 0.9, 0.99)]
    assert widths == sorted(widths)
    assert len(set(widths)) == 3


def test_halves_that_agree_have_no_sampling_error() -> None:
    def forecaster(
        part: Template, times: float, sizes: Sequence[int | None], seed: int
    ) -> FloatArray:
        assert part.sample.num_sessions == 90
        assert times == 8
        return always(0.4)

    assert half_sample_error(template(), 4, [None], forecaster, 0).max() < 1e-12


def test_halves_that_differ_do_so_by_their_standard_deviation() -> None:
    def forecaster(
        part: Template, times: float, sizes: Sequence[int | None], seed: int
    ) -> FloatArray:
        return always(0.4 if seed % 2 else 0.5)

    # Four halves 5 points above their mean and four below: variance 8 / 7 x 25.
    error = half_sample_error(template(), 4, [None], forecaster, 0)[0, 0]
    assert error == pytest.approx(0.05 * (8 / 7 * (1 - 1 / 4)) ** 0.5)


def test_a_constant_miss_of_backtests_is_bias_and_a_scattered_one_is_not() -> None:
    def counter(whole: Template, sizes: Sequence[int | None]) -> FloatArray:
        return always(0.3)

    def constant(
        part: Template, times: float, sizes: Sequence[int | None], seed: int
    ) -> FloatArray:
        return always(0.35)

    def scattered(
        part: Template, times: float, sizes: Sequence[int | None], seed: int
    ) -> FloatArray:
        return always(0.3 + (0.05 if seed % 2 else -0.05))

    assert backtest_bias(template(), 10, [None], constant, counter, 0)[0, 0] == pytest.approx(0.05)
    assert backtest_bias(template(), 10, [None], scattered, counter, 0)[0, 0] == 0


def test_twice_the_width_needs_four_times_the_sessions() -> None:
    assert sessions_needed(200, 10.0, 5.0) == 800
