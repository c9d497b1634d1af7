"""What every traffic kind promises, whatever it sends."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest
from tiny_model import make_tokenizer
from traffic_profiles import AGENT, CONVERSATION, constant, profile_of, traffic_of

from loadkit.client.guard import AppendOnlyGuard
from loadkit.core.tokenizer import Tokenizer
from loadkit.planning import check_fresh
from loadkit.profiles import Profile
from loadkit.traffic.build import build_plan
from loadkit.traffic.facts import plan_facts
from loadkit.traffic.kinds import PLANNERS
from loadkit.traffic.plan import TrafficPlan, read_plan, worker_share, write_plan
from loadkit.traffic.requests import requests_of

KINDS = [*PLANNERS, "mixture"]
# Requests of each kind's small profile, counted by hand; None: drawn.
REQUESTS = {"conversation": 36, "corpus": 12, "replay": 3, "document": 24, "batch": 10}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(make_tokenizer(), "tiny")


@pytest.fixture(params=KINDS)
def profile(request: pytest.FixtureRequest, tmp_path: Path) -> Profile:
    return profile_of(traffic_of(request.param, tmp_path))


def written(plan: TrafficPlan) -> bytes:
    return msgspec.json.encode(plan)


def test_the_same_seed_gives_the_same_bytes(profile: Profile) -> None:
    assert written(build_plan(profile)) == written(build_plan(profile))


def test_another_seed_gives_other_texts_unless_a_log_says_what_to_send(profile: Profile) -> None:
    other = profile.model_copy(update={"seed": 2})
    same = written(build_plan(profile)) == written(build_plan(other))
    assert same == (profile.traffic.kind == "replay")


def test_a_plan_survives_writing_and_reading(profile: Profile, tmp_path: Path) -> None:
    plan = build_plan(profile)
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan


def test_sessions_are_ordered_by_their_start_and_never_early(profile: Profile) -> None:
    starts = [session.start_s for session in build_plan(profile).sessions]
    assert starts == sorted(starts)
    assert starts[0] >= 0


def test_declared_counts_hold(profile: Profile) -> None:
    plan = build_plan(profile)
    kind = profile.traffic.kind
    if kind in REQUESTS:
        assert plan.num_requests == REQUESTS[kind]
    else:
        assert len(plan.sessions) == profile.traffic.sessions  # type: ignore[union-attr]
    assert plan.num_requests == plan_facts(plan)["requests"] == len(list(requests_of(plan)))


def test_no_session_id_is_used_twice_but_by_rows_that_count_on(profile: Profile) -> None:
    plan = build_plan(profile)
    numbers = Counter((request.session.session, request.number) for request in requests_of(plan))
    assert set(numbers.values()) == {1}


def test_workers_share_all_sessions_and_keep_a_session_whole(profile: Profile) -> None:
    plan = build_plan(profile)
    shares = [worker_share(plan, worker, 3) for worker in range(3)]
    owners = [{session.session for session in share} for share in shares]
    assert sum(map(len, shares)) == len(plan.sessions)
    assert sum(map(len, owners)) == len(set().union(*owners))


def test_no_prompt_shares_a_block_that_nothing_declares(
    profile: Profile, tokenizer: Tokenizer
) -> None:
    report = check_fresh(build_plan(profile), tokenizer, 16)
    assert (report.accidental, report.examples) == (0, ())
    assert report.prompt_tokens > 0


def test_a_session_rewrites_its_history_only_where_the_plan_says_so(profile: Profile) -> None:
    """The client's own guard, fed with what would be sent, counts what the plan counts."""
    plan, guard = build_plan(profile), AppendOnlyGuard()
    for request in requests_of(plan, reply=lambda session, number, turn: f"reply {number}"):
        session = request.session
        if request.turn.prompt is not None or not session.guarded:
            continue
        if request.turn.compacts:
            guard.forget(session.session)
        verdict = guard.check(session.session, request.messages, session.tools)
        assert (verdict == "resent") == request.turn.retry
    assert guard.num_refused == 0


def test_users_who_leave_end_their_session_there(profile: Profile) -> None:
    leaving = {"share": 0.5, "after_s": constant(1.5), "source": "test"}
    data = profile.model_dump(by_alias=True, exclude_unset=True)
    data["request"] = data["request"] | {"leaving": leaving}
    plan = build_plan(Profile.model_validate(data))
    turns = [session.turns for session in plan.sessions]
    assert all(turn.leaves_after_s is None for mine in turns for turn in mine[:-1])
    left = {mine[-1].leaves_after_s for mine in turns}
    assert left <= {None, 1.5}
    assert plan_facts(plan)["leaving"] == 0 or 1.5 in left


def test_a_closed_loop_has_no_planned_times(profile: Profile) -> None:
    closed = profile_of(
        profile.traffic.model_dump(exclude_unset=True), {"loop": "closed", "users": 2}
    )
    assert {session.start_s for session in build_plan(closed).sessions} == {0.0}


def test_the_contract_covers_every_kind_that_a_profile_may_name() -> None:
    tags = Profile.model_json_schema()["properties"]["traffic"]["discriminator"]["mapping"]
    assert set(tags) == set(KINDS)


def test_a_mixture_is_of_its_parts_by_weight_and_names_them() -> None:
    parts = [
        {"name": "often", "weight": 3, "traffic": CONVERSATION, "source": "test"},
        {"name": "seldom", "weight": 1, "traffic": AGENT, "source": "test"},
    ]
    plan = build_plan(profile_of({"kind": "mixture", "sessions": 400, "parts": parts}))
    counts = Counter(session.name for session in plan.sessions)
    # binomial(400, 3/4): 300 with a standard deviation of 8.7
    assert abs(counts["often"] - 300) < 35
    assert counts["often"] + counts["seldom"] == 400


def test_parts_with_arrivals_of_their_own_keep_them() -> None:
    slow = {"loop": "open", "process": "constant", "rate_per_s": 0.5}
    parts = [
        {
            "name": "slow",
            "traffic": CONVERSATION | {"sessions": 3},
            "arrivals": slow,
            "source": "test",
        },
        {
            "name": "fast",
            "traffic": CONVERSATION | {"sessions": 3},
            "arrivals": slow | {"rate_per_s": 4},
            "source": "test",
        },
    ]
    plan = build_plan(profile_of({"kind": "mixture", "parts": parts}))
    starts = {
        name: [s.start_s for s in plan.sessions if s.name == name] for name in ("slow", "fast")
    }
    assert starts == {"slow": [0, 2, 4], "fast": [0, 0.25, 0.5]}
    assert [s.start_s for s in plan.sessions] == sorted(s.start_s for s in plan.sessions)
