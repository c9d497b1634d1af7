"""What one observed request adds to the live view."""

from __future__ import annotations

from typing import Any

import pytest
from live_records import finished

from loadkit.locust_users import live as live_module
from loadkit.locust_users.live import Live, Recent, get_live


def observed(*records: Any) -> dict[str, Any]:
    live = Live()
    for record in records:
        live.observe(record)
    return live.snapshot()


def totals(view: dict[str, Any]) -> dict[str, int]:
    return {name: number for name, number in view["totals"].items() if number}


def test_nothing_observed_has_no_rate_rather_than_zero():
    view = observed()
    assert view["hit_rate"] is None
    assert view["organic_hit_rate"] is None
    assert view["replay_share_of_hits"] is None
    assert view["schedule_delay"] == {"p50_s": None, "p99_s": None}
    assert view["split_source"] is None
    assert view["warnings"] == []


def test_the_servers_own_split_is_taken_as_it_is():
    split = {"continuation": 30, "shared": 20, "miss_capacity": 10, "miss_compulsory": 40}
    view = observed(finished(cached_tokens=50, server_split=split))
    assert totals(view) == {"continuation": 30, "shared": 20, "miss": 50}
    assert view["hit_rate"] == 0.5
    assert view["split_source"] == "server"


def test_undivided_replay_of_a_server_is_divided_by_what_we_sent():
    replay = {"cached_tokens": 96, "server_split": {"replay": 96, "miss_compulsory": 4}}
    view = observed(
        finished(session="a", cached_tokens=0, server_split={"miss_compulsory": 100}),
        finished(session="a", turn=1, **replay),
        finished(session="b", **replay),
    )
    assert totals(view)["replay_same_session"] == 96
    assert totals(view)["replay_cross_session"] == 96
    assert totals(view)["replay"] == 192


def test_without_a_servers_split_an_identical_prompt_is_replay():
    view = observed(
        finished("x", session="a", cached_tokens=0),
        finished("x", session="a", turn=1, cached_tokens=96),
        finished("x", session="b", cached_tokens=96),
    )
    assert totals(view) == {
        "replay": 192,
        "replay_same_session": 96,
        "replay_cross_session": 96,
        "miss": 108,
        "replayed_prompt": 200,
    }
    assert view["split_source"] == "estimated"


def test_without_a_servers_split_continuation_ends_where_the_previous_turn_ended():
    # Previous turn: 100 prompt + 20 output tokens = 120. Of 150 cached, 30 are somebody else's.
    view = observed(
        finished("one", cached_tokens=0),
        finished("one two", turn=1, prompt_tokens=200, cached_tokens=150),
    )
    assert totals(view) == {"continuation": 120, "shared": 30, "miss": 100 + 50}


def test_a_turn_without_usage_leaves_the_session_its_earlier_prefix():
    view = observed(
        finished("one", cached_tokens=0),
        finished("one two", turn=1, outcome="cut", prompt_tokens=None, output_tokens=None),
        finished("one two three", turn=2, prompt_tokens=200, cached_tokens=150),
    )
    assert totals(view)["continuation"] == 120


def test_a_first_turn_has_no_own_prefix_even_when_its_session_name_was_used_before():
    view = observed(
        finished("one", cached_tokens=0),
        finished("other", turn=0, cached_tokens=64),
    )
    assert totals(view) == {"shared": 64, "miss": 136}


def test_not_reported_is_neither_hit_nor_miss():
    view = observed(finished("a", cached_tokens=None), finished("b", cached_tokens=40))
    assert totals(view) == {"not_reported": 100, "shared": 40, "miss": 60}
    assert view["hit_rate"] == 0.4
    assert view["not_reported_requests"] == 1
    assert [warning["code"] for warning in view["warnings"]] == ["not_reported"]


@pytest.mark.parametrize("cached", [101, -1])
def test_an_impossible_number_of_cached_tokens_is_no_report(cached):
    view = observed(finished(cached_tokens=cached))
    assert totals(view) == {"not_reported": 100}
    assert view["hit_rate"] is None


def test_a_server_split_larger_than_its_prompt_is_no_report():
    view = observed(finished(cached_tokens=50, server_split={"shared": 101}))
    assert totals(view) == {"not_reported": 100}


def test_the_organic_rate_leaves_replayed_requests_out_whole():
    # 100 tokens new, 50 of them shared; 100 tokens replayed, 90 hit. Organic: 50 / 100.
    view = observed(
        finished("x", session="a", cached_tokens=50),
        finished("x", session="b", cached_tokens=90),
    )
    assert view["hit_rate"] == 0.7
    assert view["organic_hit_rate"] == 0.5
    assert view["replay_share_of_hits"] == 90 / 140


def test_an_evicted_replay_is_left_out_of_the_organic_rate_too():
    view = observed(
        finished("x", session="a", cached_tokens=50),
        finished("x", session="b", cached_tokens=0),
    )
    assert view["hit_rate"] == 0.25
    assert view["organic_hit_rate"] == 0.5


def test_requests_without_known_messages_are_not_taken_for_replays():
    view = observed(
        finished(session="a", cached_tokens=0, messages=[]),
        finished(session="b", cached_tokens=60, messages=[]),
    )
    assert totals(view) == {"shared": 60, "miss": 140}


def test_a_request_never_sent_counts_by_outcome_alone():
    view = observed(
        finished("x", outcome="not_sent", sent_s=None, first_token_s=None, prompt_tokens=None),
        finished("x", session="b", cached_tokens=60),
    )
    assert view["outcomes"] == [
        {"outcome": "ok", "requests": 1},
        {"outcome": "not_sent", "requests": 1},
    ]
    assert totals(view) == {"shared": 60, "miss": 40}, "what was not sent cannot be replayed"
    assert view["not_reported_requests"] == 0


def test_ttft_is_kept_by_the_cause_of_most_of_the_prompt():
    view = observed(
        finished("a", cached_tokens=80, first_token_s=10.05),
        finished("b", cached_tokens=10, first_token_s=10.4),
        finished("c", cached_tokens=None, first_token_s=10.7),
    )
    p50 = {row["cause"]: row["p50_s"] for row in view["ttft"]}
    assert p50 == {
        "shared": pytest.approx(0.05, rel=1e-3),
        "miss": pytest.approx(0.4, rel=1e-3),
        "not_reported": pytest.approx(0.7, rel=1e-3),
    }


def test_the_series_has_a_column_for_the_second_in_which_a_request_ended():
    view = observed(
        finished("a", cached_tokens=40, completed_s=3.99),
        finished("b", cached_tokens=10, completed_s=5.0),
        finished("c", cached_tokens=20, completed_s=5.5),
    )
    assert view["series"]["width_s"] == 1
    assert view["series"]["at_s"] == [3, 5]
    assert view["series"]["shared"] == [40, 30]
    assert view["series"]["miss"] == [60, 170]


def test_a_reset_forgets_the_counts_but_not_what_was_sent():
    live = Live()
    live.observe(finished("x", cached_tokens=0))
    live.reset()
    assert live.snapshot()["requests"] == 0
    live.observe(finished("x", session="b", cached_tokens=96))
    assert live.snapshot()["totals"]["replay_cross_session"] == 96


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first(monkeypatch):
    recent = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.put("a", 3) == 1
    recent.put("c", 4)
    assert (recent.get("a"), recent.get("b"), recent.get("c"), len(recent)) == (3, None, 4, 2)

    monkeypatch.setattr(live_module, "MAX_PROMPTS", 1)
    view = observed(
        finished("x", session="a", cached_tokens=0),
        finished("y", session="b", cached_tokens=0),
        finished("x", session="c", cached_tokens=96),
    )
    assert "replay" not in totals(view), "forgotten prompts cannot be told from new ones"


def test_there_is_one_live_view_in_a_process():
    assert get_live() is get_live()
