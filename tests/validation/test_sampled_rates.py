"""Sampled rates on public traces: how far off, and whether the standard error says so."""

from __future__ import annotations

import numpy as np
import pytest
from public_data import CONVERSATION, DATA, SYNTHETIC, missing
from sampling_errors import T_QUANTILE, errors_of

from loadkit.traces import read_trace


@pytest.mark.parametrize("name", [CONVERSATION, SYNTHETIC])
def test_a_sample_of_a_tenth_is_off_by_half_a_point_on_average(name: str) -> None:
    if missing(name):
        pytest.skip(f"{name} is not in LOADKIT_DATA")
    trace = read_trace([DATA / name])
    errors, told, kept = errors_of(trace, DATA / name, "mooncake", 0.1, seeds=3)
    assert kept < 0.2
    assert np.abs(errors).mean() < 0.006
    assert (np.abs(errors) <= T_QUANTILE * told + 1e-9).mean() > 0.8
