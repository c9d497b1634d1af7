"""Goodput and knee: which requests count, which meet the limits, where the staircase breaks."""

from __future__ import annotations

from typing import Any

import pytest
from run_builders import answered, context

from loadkit.runs.context import RunContext, Stage
from loadkit.runs.goodput import goodput, meets, stages
from loadkit.runs.record import Record

SLO = {"ttft_s": 0.15, "tpot_s": None, "e2e_s": 0.5, "share": 0.9}


def known(**fields: Any) -> RunContext:
    return context(profile={"name": "test", "slo": SLO}, **fields)


@pytest.mark.parametrize(
    ("fields", "met"),
    [
        ({}, True),  # first token after 0.1 s, end after 0.3 s
        ({"first_token_s": 0.16}, False),
        ({"completed_s": 0.51}, False),
        ({"first_token_s": None}, False),
        ({"outcome": "timeout"}, False),
    ],
)
def test_a_request_meets_every_limit_or_none(fields: dict[str, Any], met: bool) -> None:
    assert meets(answered("a", 0, 0.0, **fields), SLO) is met


def test_an_answer_of_one_token_has_no_tpot_to_miss() -> None:
    one = answered("a", 0, 0.0, output_tokens=1)
    assert meets(one, {"tpot_s": 0.001, "share": 1})


def test_what_the_server_had_no_chance_to_answer_does_not_count() -> None:
    """4 good of 5 that count, over 10.3 s; e2e of the late one is 0.6 s."""
    records = [
        *(answered("a", turn, 2.5 * turn) for turn in range(3)),
        answered("a", 3, 7.5, completed_s=8.1),
        answered("b", 0, 10.0),
        answered("c", 0, 1.0, outcome="not_sent", sent_s=None, completed_s=None),
        answered("c", 1, 1.0, outcome="cancelled", completed_s=None),
    ]
    found = goodput(records, known())
    assert found is not None
    assert (found["requests_met"], found["requests_judged"]) == (4, 5)
    assert found["goodput_share"] == 0.8
    assert found["goodput_per_s"] == pytest.approx(4 / 10.3)


def test_without_limits_there_is_no_goodput() -> None:
    assert goodput([answered("a", 0, 0.0)], context()) is None


def staircase(bad: dict[int, int]) -> tuple[list[Record], RunContext]:
    """Stages of 10 s at 1, 2 and 3 sessions a second; `bad`: how many of 10 sessions are too slow."""
    records = []
    for stage in range(3):
        for number in range(10):
            at_s = 10 * stage + number * 0.9
            late = {"completed_s": at_s + 1} if number < bad.get(stage, 0) else {}
            records.append(answered(f"{stage}-{number}", 0, at_s, **late))
    edges = [Stage(10.0 * n, 10.0 * (n + 1), n + 1.0) for n in range(3)]
    return records, known(stages=edges)


@pytest.mark.parametrize(
    ("bad", "knee"),
    [({}, 3.0), ({2: 2}, 2.0), ({2: 1}, 3.0), ({1: 5}, 1.0), ({0: 5}, None)],
)
def test_the_knee_is_the_highest_rate_up_to_which_all_stages_meet_the_share(
    bad: dict[int, int], knee: float | None
) -> None:
    found = goodput(*staircase(bad))
    assert found is not None
    assert found["knee_per_s"] == knee


def test_all_turns_of_a_session_are_of_the_stage_in_which_it_started() -> None:
    records, known_ = staircase({})
    found = stages([*records, answered("0-0", 1, 25.0)], known_)
    assert [stage["requests"] for stage in found] == [11, 10, 10]
    assert found[0]["goodput_per_s"] == 1.1
    assert found[0]["goodput_share"] == 1.0
