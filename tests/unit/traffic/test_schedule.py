"""Warm-up, priming and measurement: apart in time and in sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from traffic_profiles import (
    AGENT,
    BATCH,
    CONVERSATION,
    DOCUMENT,
    ONE_SECOND,
    profile_of,
    write_log_of_three,
)

from loadkit.traffic.build import build_plan
from loadkit.traffic.plan import SessionPlan


def planned(traffic: dict[str, Any], arrivals: Any = None, **more: Any) -> list[SessionPlan]:
    return list(build_plan(profile_of(traffic, arrivals, **more)).sessions)


def phases(sessions: list[SessionPlan]) -> list[str]:
    return [session.phase for session in sessions]


def test_sessions_that_start_in_the_warm_up_are_warm_up() -> None:
    sessions = planned(CONVERSATION | {"sessions": 5}, warmup_s=2.0)
    assert phases(sessions) == ["warmup", "warmup", "measured", "measured", "measured"]


def test_the_first_sessions_of_a_closed_loop_can_be_warm_up() -> None:
    closed = {"loop": "closed", "users": 2}
    sessions = planned(CONVERSATION | {"sessions": 4}, closed, warmup_sessions=3)
    assert phases(sessions) == ["warmup"] * 3 + ["measured"]


def test_a_warm_up_by_time_is_refused_where_nothing_has_a_time() -> None:
    closed = {"loop": "closed", "users": 2}
    with pytest.raises(ValueError, match=r"warmup_s: a closed loop .* use warmup_sessions"):
        planned(CONVERSATION | {"sessions": 4}, closed, warmup_s=1.0)


def test_a_logged_conversation_that_begins_in_the_warm_up_stays_in_it(tmp_path: Path) -> None:
    """Rows of `a` come at 0 and 4 s, `b` at 1.5 s: only `b` is measured."""
    replay = {"kind": "replay", "log": write_log_of_three(tmp_path)}
    sessions = planned(replay, {"loop": "open", "process": "log"}, warmup_s=1.0)
    named = [(one.session, one.start_s, one.phase) for one in sessions]
    assert named == [("a", 0, "warmup"), ("b", 1.5, "measured"), ("a", 4, "warmup")]


def test_sub_agents_are_of_their_parents_phase() -> None:
    traffic = AGENT | {"sessions": 2, "sub_agents": AGENT["sub_agents"] | {"share": 1}}
    for session in planned(traffic, warmup_sessions=1):
        subs = {sub.phase for turn in session.turns for sub in turn.sub_agents}
        assert subs == {session.phase}


def test_priming_sends_each_shared_prefix_once_before_everything_else() -> None:
    """3 system prompts: 3 primed sessions, spread over the 6 s before the schedule."""
    priming = {"what": "system_prompts", "lead_s": 6}
    plain = planned(CONVERSATION | {"sessions": 40})
    sessions = planned(CONVERSATION | {"sessions": 40}, priming=priming)
    primed, measured = sessions[:3], sessions[3:]
    assert [one.start_s for one in primed] == [0, 2, 4]
    assert phases(primed) == ["priming"] * 3
    assert [one.start_s for one in measured] == [one.start_s + 6 for one in plain]
    systems = {one.turns[0].messages[0]["content"] for one in measured}
    assert {one.turns[0].messages[0]["content"] for one in primed} == systems
    assert {turn.max_tokens for one in primed for turn in one.turns} == {1}


def test_priming_never_has_a_session_of_the_run() -> None:
    sessions = planned(DOCUMENT | {"sessions": 9}, priming={"what": "first_n", "n": 2})
    primed = {one.session for one in sessions if one.phase == "priming"}
    assert len(primed) == 2
    assert not primed & {one.session for one in sessions if one.phase == "measured"}


def test_priming_with_the_first_sessions_makes_their_openings_repeats() -> None:
    sessions = planned(CONVERSATION | {"sessions": 5}, priming={"what": "first_n", "n": 2})
    primed, measured = sessions[:2], sessions[2:]
    assert [one.turns[0].messages for one in primed] == [
        one.turns[0].messages for one in measured[:2]
    ]
    assert [one.repeats for one in measured] == [True, True, False, False, False]


def test_priming_a_batch_on_completions_sends_the_instruction_alone() -> None:
    request = {"max_tokens": {"distribution": "constant", "mean": 4, "max": 4, "source": "test"}}
    sessions = planned(
        BATCH | {"runs": 1},
        priming={"what": "system_prompts"},
        request=request | {"api": "completions"},
    )
    primed, first = sessions[0].turns[0].prompt, sessions[1].turns[0].prompt
    assert isinstance(primed, str)
    assert isinstance(first, str)
    assert sum(one.phase == "priming" for one in sessions) == 1
    assert first.startswith(primed)
    assert {one.api for one in sessions} == {"completions"}


def test_priming_a_closed_loop_comes_first_without_a_lead() -> None:
    closed = {"loop": "closed", "users": 2}
    priming = {"what": "system_prompts"}
    sessions = planned(CONVERSATION | {"sessions": 4}, closed, priming=priming)
    assert sessions[0].phase == "priming"
    assert {one.start_s for one in sessions} == {0.0}


@pytest.mark.parametrize(
    ("priming", "says"),
    [({"what": "first_n"}, "needs `n`"), ({"what": "system_prompts", "n": 3}, "takes no `n`")],
)
def test_priming_is_told_what_it_lacks(priming: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        profile_of(CONVERSATION | {"sessions": 1}, ONE_SECOND, priming=priming)
