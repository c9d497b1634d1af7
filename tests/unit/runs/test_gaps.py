"""The gap between witnesses, named: parts add up, whatever they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from run_builders import answered

from loadkit.runs.gaps import PARTS, prometheus_gap, usage_gap
from loadkit.runs.prediction import Prediction, Predictions
from loadkit.runs.splits import split_requests
from loadkit.runs.view import Gathered, View, measured_view

# Two prompts of 100 tokens, blocks of 16. Of the second, 75 tokens were seen before: 4 blocks.
REUSABLE = [0, 64]


def view(
    cached: list[int | None],
    *,
    resident: list[int] | None = None,
    drawn: list[list[int]] | None = None,
    overlap: list[int] | None = None,
    matched: list[int] | None = None,
    unruled: list[int] | None = None,
) -> View:
    records = [
        answered("a", turn, turn, cached_tokens=tokens) for turn, tokens in enumerate(cached)
    ]
    best = Prediction(
        prompt_tokens=np.array([100, 100]),
        replay=(None, None),
        own_prefix_tokens=np.array(REUSABLE),
        reusable_tokens=np.array(REUSABLE),
        resident_tokens=None if resident is None else np.array(resident),
        drawn_tokens=None if drawn is None else np.array(drawn),
    )
    columns = [None if c is None else np.array(c) for c in (overlap, unruled, matched)]
    predictions = Predictions(best, None, [], *columns)
    splits = split_requests(records, None)
    return measured_view(Gathered(records, 0, 0), records, splits, predictions)


def gap(*args: Any, **kwargs: Any) -> dict[str, int | None]:
    found = usage_gap(view(*args, **kwargs))
    assert found is not None
    named = sum(
        found[name] or 0 for name in PARTS if name not in ("block_rounding", "last_block_rule")
    )
    assert (found["reusable"] or 0) + named + (found["unexplained"] or 0) == found["usage"]
    return found


def test_blocks_and_the_last_token_are_named() -> None:
    """80 tokens of an identical prompt: 5 blocks of 16, but the last one is computed again."""
    found = gap([0, 64], matched=[0, 85], unruled=[0, 80])
    assert (found["matched"], found["block_rounding"], found["last_block_rule"]) == (85, -5, -16)
    assert (found["reusable"], found["usage"], found["unexplained"]) == (64, 64, 0)


def test_what_the_capacity_costs_is_eviction() -> None:
    found = gap([0, 16], resident=[0, 16])
    assert (found["eviction"], found["unexplained"]) == (-48, 0)


def test_running_requests_explain_no_more_than_simulating_them_costs() -> None:
    found = gap([0, 0], resident=[0, 48], overlap=[0, 16])
    assert (found["held_by_running"], found["unexplained"]) == (-32, -16)
    found = gap([0, 48], resident=[0, 48], overlap=[0, 16])
    assert (found["held_by_running"], found["unexplained"]) == (0, 0)


def test_more_than_the_run_could_reuse_was_in_the_cache_before() -> None:
    found = gap([48, 64])
    assert (found["warm_cache"], found["unexplained"]) == (48, 0)


def test_another_order_of_requests_that_overlap_is_no_warm_cache() -> None:
    """The server computed the second prompt before the first: the hit changes sides."""
    found = gap([64, 0])
    assert (found["warm_cache"], found["unexplained"]) == (0, 0)


def test_answers_without_usage_are_named() -> None:
    found = gap([0, None])
    assert (found["not_reported"], found["usage"], found["unexplained"]) == (-64, 0, 0)


def test_a_server_that_reports_less_than_it_could_is_unexplained() -> None:
    assert gap([0, 32])["unexplained"] == -32


@pytest.mark.parametrize(
    ("counted", "unanswered", "named"),
    [
        ((64, 200), 0, {}),
        ((80, 200), 0, {"under_reported": 16}),
        ((94, 300), 0, {"other_traffic": 30, "other_prompt_tokens": 100}),
        ((94, 300), 1, {"unanswered_or_other": 30, "other_prompt_tokens": 100}),
        ((60, 200), 0, {"unexplained": -4}),
        ((200, 250), 0, {"other_traffic": 50, "other_prompt_tokens": 50, "unexplained": 86}),
    ],
)
def test_the_servers_counters_beside_the_answers(
    counted: tuple[int, int], unanswered: int, named: dict[str, int]
) -> None:
    found = prometheus_gap((64, 200), counted, unanswered)
    assert found is not None
    assert {name: tokens for name, tokens in found.items() if tokens} == named


def test_without_a_witness_there_is_no_gap() -> None:
    assert prometheus_gap((None, None), (1, 1), 0) is None
    assert usage_gap(view([None, None])) is None


def test_what_lies_in_the_interval_is_the_order_of_work_and_the_rest_is_unexplained() -> None:
    inside = gap([0, 32], resident=[0, 48], drawn=[[0, 32], [0, 64]])
    assert (inside["eviction"], inside["step_order"], inside["unexplained"]) == (-16, -16, 0)
    outside = gap([0, 16], resident=[0, 48], drawn=[[0, 32], [0, 64]])
    assert (outside["step_order"], outside["unexplained"]) == (-16, -16)
