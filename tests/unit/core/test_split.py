"""The split by cause always sums to the prompt tokens."""

from hypothesis import given
from hypothesis import strategies as st

from loadkit.core.split import Split, attribute


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
