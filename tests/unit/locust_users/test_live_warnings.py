"""When the live view warns, and when it keeps quiet."""

from __future__ import annotations

from live_records import finished

from loadkit.locust_users.live import Live
from loadkit.locust_users.live_view import ExpectedHitRate


def codes(live: Live, expected: ExpectedHitRate | None = None) -> list[str]:
    return [warning["code"] for warning in live.snapshot(expected)["warnings"]]


def replays(hits_of_replay: int) -> Live:
    """80 shared hit tokens, and hit tokens of a replay."""
    live = Live()
    live.observe(finished("x", session="a", cached_tokens=80))
    live.observe(finished("x", session="b", cached_tokens=hits_of_replay))
    return live


def test_replay_up_to_a_tenth_of_the_hits_is_organic():
    assert codes(replays(8)) == []  # 8 of 88


def test_replay_above_a_tenth_of_the_hits_is_contamination():
    assert codes(replays(9)) == ["replay_mirage"]  # 9 of 89


def test_a_rate_within_what_is_expected_is_no_warning():
    live = replays(0)  # 80 of 200
    assert codes(live, ExpectedHitRate(0.35, 0.3, 0.4)) == []
    assert codes(live, ExpectedHitRate(0.35, 0.3, 0.39)) == ["unlike_production"]


def test_requests_that_leave_late_are_a_warning():
    on_time, late = Live(), Live()
    on_time.observe(finished(cached_tokens=0, intended_s=9.91))
    late.observe(finished(cached_tokens=0, intended_s=9.85))
    assert codes(on_time) == []
    assert codes(late) == ["invalid_timing"]
    assert "150 ms" in late.snapshot()["warnings"][0]["message"]


def test_the_expected_rate_travels_with_the_view():
    view = Live().snapshot(ExpectedHitRate(0.35, 0.3, 0.4))
    assert view["expected_hit_rate"] == {"estimate": 0.35, "low": 0.3, "high": 0.4}
