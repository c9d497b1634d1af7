"""The split by cause always sums to the prompt tokens."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadkit.core.errors import InternalError
from loadkit.core.split import Split, attribute, check_shares


def test_own_blocks_come_first_and_the_rest_of_a_hit_is_shared() -> None:
    split = attribute(48, prompt_tokens=70, own_prefix_tokens=32, replay=None)
    assert (split.continuation, split.shared, split.miss) == (32, 16, 22)


def test_all_hit_tokens_of_a_replayed_prompt_are_replay() -> None:
    split = attribute(48, prompt_tokens=70, own_prefix_tokens=32, replay="cross_session")
    assert (split.replay_cross_session, split.genuine, split.miss) == (48, 0, 22)


def test_a_session_that_repeats_itself_is_kept_apart() -> None:
    split = attribute(48, prompt_tokens=70, own_prefix_tokens=0, replay="same_session")
    assert (split.replay_same_session, split.replay_cross_session) == (48, 0)


def test_splits_add_up() -> None:
    total = Split(10, continuation=4, miss_capacity=2) + Split(20, shared=5)
    assert total == Split(30, continuation=4, shared=5, miss_capacity=2)
    assert (total.hit, total.miss, total.miss_compulsory) == (9, 21, 19)


def test_a_miss_is_never_seen_evicted_or_unexplained() -> None:
    split = Split(20, shared=5, miss_capacity=4, miss_unexplained=3)
    assert (split.miss, split.miss_compulsory) == (15, 8)


@pytest.mark.parametrize(
    "parts",
    [
        {"continuation": 11},
        {"shared": 6, "miss_capacity": 5},
        {"miss_capacity": 6, "miss_unexplained": 5},
        {"shared": -1},
        {"miss_capacity": -1},
    ],
)
def test_a_split_with_a_negative_part_is_a_fault_of_ours(parts: dict[str, int]) -> None:
    with pytest.raises(InternalError, match="please report it") as raised:
        Split(10, **parts)
    assert raised.value.exit_code == 3


@pytest.mark.parametrize("share", [-0.01, 1.01, 5.069, math.nan])
def test_a_share_outside_0_to_1_is_a_fault_of_ours(share: float) -> None:
    check_shares("the whole", {"hit_rate": 0.0, "miss": 1.0, "shared": None})
    with pytest.raises(InternalError, match="hit_rate of the whole is"):
        check_shares("the whole", {"hit_rate": share})


def test_a_rate_of_no_tokens_is_unknown_not_zero() -> None:
    assert Split(0).rate("hit") is None
    assert Split(8, shared=2).rate("shared") == 0.25


@given(
    st.integers(0, 500),
    st.integers(0, 500),
    st.integers(0, 500),
    st.sampled_from([None, "same_session", "cross_session"]),
)
def test_parts_sum_to_prompt_tokens(cached: int, extra: int, own: int, replay: str | None) -> None:
    s = attribute(cached, prompt_tokens=cached + extra, own_prefix_tokens=own, replay=replay)
    parts = (s.replay_same_session, s.replay_cross_session, s.continuation, s.shared, s.miss)
    assert sum(parts) == cached + extra
    assert min(parts) >= 0
