"""Why tokens hit: replay, continuation, shared, and what eviction cost. Blocks of 4 tokens."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadkit.analysis import per_request
from loadkit.analysis.curve import hit_curve
from loadkit.analysis.reuse import reuse_of
from loadkit.core.errors import InputError
from loadkit.core.split import Split
from loadkit.traces import TokenRequest, token_trace

SYSTEM = [1, 1, 1, 1]


def test_prompts_of_10_and_12_sharing_9_tokens_hit_8() -> None:
    first, second = [*range(9), 50], [*range(9), 60, 61, 62]
    trace = token_trace([TokenRequest(first, session=0), TokenRequest(second, session=1)], 4)
    requests = per_request(trace, None)
    assert requests.reusable_tokens.tolist() == [0, 8]
    assert requests.split(1) == Split(12, shared=8)


def test_a_fully_cached_prompt_computes_its_last_block_again() -> None:
    prompt = TokenRequest([1, 2, 3, 4, 5, 6, 7, 8], session=0)
    requests = per_request(token_trace([prompt, prompt], 4), None)
    assert requests.reusable_tokens.tolist() == [0, 4]


def test_the_same_prompt_again_is_a_replay_of_its_own_session_first() -> None:
    prompt = [1, 2, 3, 4, 5]
    sent = [TokenRequest(prompt, session=name) for name in ("a", "b", "a", "b", "c")]
    requests = per_request(token_trace(sent, 4), None)
    assert requests.replay.tolist() == [0, 2, 1, 1, 2]
    assert requests.split(1) == Split(5, replay_cross_session=4)
    assert requests.split(2) == Split(5, replay_same_session=4)
    assert requests.total() == Split(25, replay_same_session=8, replay_cross_session=8)
    assert requests.organic_hit_rate() == 0.0


def test_a_replay_does_not_depend_on_what_the_cache_still_holds() -> None:
    sent = [TokenRequest([n] * 5, session=row) for row, n in enumerate([1, 2, 3, 1])]
    requests = per_request(token_trace(sent, 4), 3)
    assert requests.replay.tolist() == [0, 0, 0, 2]
    assert requests.split(3) == Split(5, miss_capacity=4)


def test_an_earlier_turn_is_continuation_and_a_common_beginning_is_shared() -> None:
    turn = [*SYSTEM, 2, 2, 2, 2]
    sent = [
        TokenRequest([*SYSTEM, 9, 9, 9, 9], session="a"),
        TokenRequest(turn, session="b"),
        TokenRequest([*turn, 3, 3, 3, 3, 3], session="b"),
    ]
    requests = per_request(token_trace(sent, 4), None)
    assert requests.own_prefix_tokens.tolist() == [0, 0, 8]
    assert requests.split(1) == Split(8, shared=4)
    assert requests.split(2) == Split(13, continuation=8)
    assert requests.organic_hit_rate() == 12 / 29


def test_blocks_that_others_added_behind_the_own_prefix_are_shared() -> None:
    long = [*SYSTEM, 2, 2, 2, 2, 3]
    sent = [
        TokenRequest([*SYSTEM, 7], session="a"),
        TokenRequest(long, session="b"),
        TokenRequest([*long, 4], session="a"),
    ]
    requests = per_request(token_trace(sent, 4), None)
    assert requests.split(2) == Split(10, continuation=4, shared=4)


def test_a_reply_in_the_cache_is_continuation_for_its_session_only() -> None:
    first = TokenRequest(SYSTEM, reply=[5, 5, 5, 5], session="a")
    follow = [*SYSTEM, 5, 5, 5, 5, 6]
    own = per_request(token_trace([first, TokenRequest(follow, session="a")], 4), None)
    others = per_request(token_trace([first, TokenRequest(follow, session="b")], 4), None)
    assert own.split(1) == Split(9, continuation=8)
    assert others.split(1) == Split(9, shared=8)


def test_a_reply_does_not_hit_before_it_is_complete() -> None:
    first = TokenRequest(SYSTEM, reply=[5] * 4, session="a", arrival_s=0, latency_s=3)
    follow = [*SYSTEM, 5, 5, 5, 5, 6]

    def reusable(at: float) -> list[int]:
        second = TokenRequest(follow, session="a", arrival_s=at, latency_s=1)
        return per_request(token_trace([first, second], 4), None).reusable_tokens.tolist()

    assert reusable(at=2) == [0, 4]
    assert reusable(at=3) == [0, 4]  # arrivals come first at a tie
    assert reusable(at=3.5) == [0, 8]


def test_other_salts_share_nothing() -> None:
    sent = [TokenRequest(SYSTEM * 3, session=n, salt=str(n)) for n in range(3)]
    requests = per_request(token_trace(sent, 4), None)
    assert requests.replay.tolist() == [0, 0, 0]
    assert requests.total() == Split(36)


def test_evicted_blocks_are_told_apart_from_never_seen_ones() -> None:
    long = [*SYSTEM, 2, 2, 2, 2, 3]
    other = [8] * 4
    sent = [TokenRequest(p, session=i) for i, p in enumerate([long, other, [*long, 4, 4, 4, 4]])]
    requests = per_request(token_trace(sent, 4), 3)
    # Pages by age: the started page of `long`, its second block, its first, `other`.
    assert requests.split(2) == Split(13, shared=8)
    assert per_request(token_trace(sent, 4), 2).split(2) == Split(13, shared=4, miss_capacity=4)
    assert per_request(token_trace(sent, 4), 1).split(2) == Split(13, miss_capacity=8)


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(InputError, match="unknown engine 'other'"):
        reuse_of(token_trace([TokenRequest([1])], 4), engine="other")


Sent = list[tuple[tuple[int, ...], tuple[int, ...], int]]


@st.composite
def sent_requests(draw: st.DrawFn) -> Sent:
    """(prompt, reply, session) over two token values."""
    sent: Sent = []
    for _ in range(draw(st.integers(1, 12))):
        start: tuple[int, ...] = ()
        if sent and draw(st.booleans()):
            before = draw(st.sampled_from(sent))
            start = before[0] + before[1]
        prompt = start + tuple(draw(st.lists(st.integers(0, 1), min_size=1, max_size=4)))
        reply = tuple(draw(st.lists(st.integers(0, 1), max_size=3)))
        sent.append((prompt, reply, draw(st.integers(0, 2))))
    return sent


def split_by_hand(sent: Sent, row: int, block_size: int) -> Split:
    """The split of one request in an infinite cache, from the definitions and plain tuples."""
    prompt, _, session = sent[row]
    earlier = sent[:row]
    hit = own = 0
    for end in range(block_size, len(prompt), block_size):
        head = prompt[:end]
        if any((p + r)[:end] == head for p, r, _ in earlier):
            hit = end
        if any((p + r)[:end] == head for p, r, s in earlier if s == session):
            own = end
    senders = [s for p, _, s in earlier if p == prompt]
    if session in senders:
        return Split(len(prompt), replay_same_session=hit)
    if senders:
        return Split(len(prompt), replay_cross_session=hit)
    return Split(len(prompt), continuation=own, shared=hit - own)


@settings(max_examples=300, deadline=None)
@given(sent_requests(), st.integers(1, 3))
def test_splits_equal_the_definitions_applied_by_hand(sent: Sent, block_size: int) -> None:
    trace = token_trace(
        (TokenRequest(prompt, reply=reply, session=name) for prompt, reply, name in sent),
        block_size,
    )
    requests = per_request(trace, None)
    by_hand = [split_by_hand(sent, row, block_size) for row in range(len(sent))]
    assert [requests.split(row) for row in range(len(sent))] == by_hand
    assert sum(by_hand, Split(0)) == requests.total()


@settings(max_examples=100, deadline=None)
@given(sent_requests(), st.integers(1, 3))
def test_the_curve_is_the_sum_of_the_requests_at_every_capacity(
    sent: Sent, block_size: int
) -> None:
    trace = token_trace(
        (TokenRequest(prompt, reply=reply, session=name) for prompt, reply, name in sent),
        block_size,
    )
    curve = hit_curve(reuse_of(trace))
    for capacity in [*range(1, trace.num_ids + len(sent) + 2), None]:
        assert curve.split(capacity) == per_request(trace, capacity).total()
