"""Latency figures by hand."""

from __future__ import annotations

import pytest
from run_builders import answered

from loadkit.core.split import Split
from loadkit.runs.latency import latency, main_cause, summarize


def test_quantiles_are_values_that_occurred() -> None:
    figures = summarize(float(value) for value in range(1, 101))
    assert figures == {"n": 100, "mean": 50.5, "p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}


def test_p99_of_few_values_is_the_largest() -> None:
    assert summarize([3.0, 1.0, 2.0])["p99"] == 3.0


def test_unknown_values_are_left_out_and_nothing_known_is_none() -> None:
    assert summarize([None, 4.0])["n"] == 1
    assert summarize([None]) == dict.fromkeys(("mean", "p50", "p90", "p99", "max")) | {"n": 0}


@pytest.mark.parametrize(
    ("split", "cause"),
    [
        (Split(100, replay_cross_session=60), "replay"),
        (Split(100, replay_same_session=60), "replay"),
        (Split(100, continuation=40, shared=30), "continuation"),
        (Split(100, continuation=20, shared=30), "shared"),
        (Split(100, continuation=25, shared=25), "continuation"),
        (Split(100, shared=49), "miss"),
        (Split(100), "miss"),
        (Split(0), "miss"),
        (None, None),
    ],
)
def test_a_request_belongs_to_its_largest_cause_if_half_is_cached(
    split: Split | None, cause: str | None
) -> None:
    assert main_cause(split) == cause


def test_ttft_counts_from_the_send_and_e2e_from_the_intended_time() -> None:
    late = answered("a", 0, 5.0, intended_s=4.0)
    figures = latency([late], [Split(100)])
    assert figures["ttft_s"]["max"] == pytest.approx(0.1)
    assert figures["e2e_s"]["max"] == pytest.approx(1.3)
    assert figures["tpot_s"]["max"] == pytest.approx(0.1)  # 0.2 s for the 2 tokens after the first
    assert figures["itl_s"]["n"] == 1


def test_ttft_is_grouped_by_cause() -> None:
    records = [answered("a", 0, 0.0), answered("a", 1, 1.0, first_token_s=1.02)]
    by_cause = latency(records, [Split(100), Split(100, continuation=90)])["ttft_s_by_cause"]
    assert by_cause["miss"]["max"] == pytest.approx(0.1)
    assert by_cause["continuation"]["max"] == pytest.approx(0.02)
    assert by_cause["replay"]["n"] == 0
