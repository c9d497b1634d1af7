"""Diversity: effective numbers, coverage, popularity, time, near replays, leaderboard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from audit_logs import assistant, system, turn, user
from hypothesis import given, settings
from hypothesis import strategies as st

from loadkit.analysis.diversity import Diversity, diversity
from loadkit.analysis.diversity.frequencies import coverage, hill_numbers, zipf
from loadkit.analysis.diversity.times import over_time
from loadkit.analysis.per_request import per_request_of
from loadkit.analysis.reuse import reuse_of
from loadkit.core.trace import Trace
from loadkit.traces import TokenRequest, token_trace


def of(requests: Sequence[TokenRequest], block_size: int = 1, show_text: bool = False) -> Diversity:
    return diversity(reuse_of(token_trace(requests, block_size)), show_text)


def asked(*prompts: Sequence[int]) -> list[TokenRequest]:
    """Each prompt in a session of its own."""
    return [TokenRequest(prompt, session=row) for row, prompt in enumerate(prompts)]


def timed(*rows: tuple[float, Sequence[int]]) -> Trace:
    requests = [TokenRequest(prompt, session=at, arrival_s=at) for at, prompt in rows]
    return token_trace(requests, 1)


def test_hill_numbers_of_equal_and_unequal_shares() -> None:
    equal = hill_numbers(np.array([5, 5, 5, 5]))
    assert (equal.order_0, equal.order_1, equal.order_2) == (4, pytest.approx(4), pytest.approx(4))
    # Shares 1/2, 1/4, 1/4: entropy 1.5 bits, squared shares sum to 3/8.
    unequal = hill_numbers(np.array([2, 1, 1]))
    assert unequal.order_1 == pytest.approx(2**1.5)
    assert unequal.order_2 == pytest.approx(8 / 3)
    assert hill_numbers(np.zeros(0, np.int64)).order_1 is None


def test_good_turing_coverage_counts_what_was_seen_once() -> None:
    assert coverage(np.array([3, 1, 1])) == pytest.approx(3 / 5)
    assert coverage(np.array([1, 1])) == 0
    assert coverage(np.zeros(0, np.int64)) is None


@pytest.mark.parametrize("tail_exponent", [1.8, 2.2, 3.0])
def test_zipf_finds_the_exponent_that_counts_were_drawn_with(tail_exponent: float) -> None:
    found = zipf(np.random.default_rng(7).zipf(tail_exponent, 20_000))
    assert found is not None
    assert abs(found.tail_exponent - tail_exponent) < 3 * found.standard_error < 0.15
    assert found.exponent == pytest.approx(1 / (found.tail_exponent - 1))


def test_zipf_of_too_few_or_equal_counts_is_unknown() -> None:
    assert zipf(np.arange(2, 40)) is None
    assert zipf(np.full(100, 3)) is None
    assert zipf(np.ones(100, np.int64)) is None


def test_prompts_and_prefixes_are_counted_apart() -> None:
    found = of(asked([1, 2, 3], [1, 2, 3], [1, 2, 4], [9]))
    assert (found.distinct_prompts, found.distinct_share) == (3, 3 / 4)
    assert found.prompt_coverage == 1 - 2 / 4
    # Prefixes 1, 12, 123, 124, 9: of 10 touches two are of blocks seen once.
    assert found.distinct_prefixes == 5
    assert found.prefix_coverage == pytest.approx(1 - 2 / 10)
    # The runs "1 2" and "3" are in more than one session.
    assert found.shared_prefixes == 2


def test_the_leaderboard_cuts_at_branching_points_and_adds_up() -> None:
    # A system prompt of 4 tokens for five sessions, a document of 3 behind it for two of them.
    rules, paper = [1, 2, 3, 4], [5, 6, 7]
    found = of(
        asked(
            [*rules, *paper, 20, 21],
            [*rules, *paper, 30, 31],
            [*rules, 40, 41],
            [*rules, 50, 51],
            [*rules, 60, 61],
        )
    )
    first, second = found.leaderboard
    assert (first.start_token, first.tokens, first.sessions, first.requests) == (0, 4, 5, 5)
    assert (second.start_token, second.tokens, second.sessions) == (4, 3, 2)
    assert (first.hit_tokens, second.hit_tokens) == (16, 3)
    assert (first.hit_share, second.hit_share) == (16 / 19, 3 / 19)
    assert (first.first_request, first.words, first.message_index) == (1, None, None)


def test_a_session_that_goes_on_alone_is_not_on_the_leaderboard() -> None:
    requests = [TokenRequest(range(size), session="s") for size in (3, 6, 9)]
    assert of(requests).leaderboard == ()
    assert of(requests).shared_prefixes == 0


def test_words_are_shown_only_when_asked_for() -> None:
    rules = system("You know trains. " * 4)
    requests = [
        turn([rules, user(f"{name} asks: " + "long text " * 9), assistant("ok")], session=name)
        for name in ("Ada", "Ben", "Cyd")
    ]
    hidden, shown = of(requests).leaderboard[0], of(requests, show_text=True).leaderboard[0]
    assert (hidden.words, hidden.message_index) == (None, 0)
    assert shown.words is not None
    assert shown.words.startswith("You know trains.")
    assert msgspec.structs.replace(shown, words=None) == hidden


def test_near_replays_are_new_prompts_that_others_began() -> None:
    base = list(range(100))
    found = of(asked(base, [*base[:97], 7, 7, 7], base, [*base[:55], *range(200, 245)], [1]))
    near = found.near_replay
    # Of 99 tokens that may hit: none, 97, 99 (a replay), 55.
    assert near.opening_requests == (1, 0, 0, 0, 0, 1, 0, 0, 0, 2)
    assert near.all_requests == near.opening_requests
    assert (near.near_replays, near.too_short) == (1, 1)


def test_a_session_s_own_history_is_no_near_replay() -> None:
    requests = [TokenRequest(range(size), session="s") for size in (90, 95, 100)]
    near = of(requests).near_replay
    assert near.opening_requests == (1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert near.all_requests == (1, 0, 0, 0, 0, 0, 0, 0, 0, 2)
    assert near.near_replays == 0


def test_reuse_times_are_shares_of_reuses() -> None:
    # Block 1 comes again after 5 s, 5 s and 190 s; block 2 after 200 s; 3 never.
    trace = timed((0, [1]), (5, [1]), (6, [2]), (10, [1, 3]), (200, [1]), (206, [2]))
    times, _ = over_time(trace)
    assert [(item.seconds, item.share) for item in times or ()] == [
        (1, 0),
        (10, 2 / 4),
        (60, 2 / 4),
    ]


def test_the_working_set_of_two_blocks_by_hand() -> None:
    # Looking back 10 s from moments 10..20: block 1 (touched at 0 and 20) is never seen before 20,
    # block 2 (touched at 5) is seen until 15.
    _, sets = over_time(timed((0, [1]), (5, [2]), (20, [1])))
    assert [(item.seconds, item.mean_blocks) for item in sets or ()] == [
        (1, pytest.approx((1 + 0) / 19)),
        (10, pytest.approx(5 / 10)),
    ]


def test_without_times_there_are_no_time_curves() -> None:
    found = of(asked([1, 2], [1, 2]))
    assert (found.reuse_times, found.working_set) == (None, None)
    assert over_time(timed((0, [1]), (0, [1]))) == ((), ())


def mean_blocks_by_hand(trace: Trace, length: float) -> float:
    """Mean over moments of the blocks touched in (t - length, t], from pieces where it is constant."""
    assert trace.arrival_s is not None
    rows = zip(trace.arrival_s, trace.block_ptr[:-1], trace.block_ptr[1:], strict=True)
    touches = [
        (float(at), int(block)) for at, low, high in rows for block in trace.block_ids[low:high]
    ]
    start, end = touches[0][0] + length, touches[-1][0]
    edges = {start, end, *(t for t, _ in touches), *(t + length for t, _ in touches)}
    cuts = sorted(edge for edge in edges if start <= edge <= end)
    area = 0.0
    for low, high in pairwise(cuts):
        middle = (low + high) / 2
        area += (high - low) * len({b for t, b in touches if middle - length < t <= middle})
    return area / (end - start)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 4)), min_size=2, max_size=12))
def test_the_working_set_is_the_mean_over_all_moments(rows: list[tuple[int, int]]) -> None:
    trace = timed(*((at / 2, [block]) for at, block in sorted(rows)))
    _, sets = over_time(trace)
    for item in sets or ():
        assert item.mean_blocks == pytest.approx(mean_blocks_by_hand(trace, item.seconds))


prompts = st.lists(st.lists(st.integers(0, 2), max_size=8), min_size=1, max_size=20)


@settings(max_examples=150, deadline=None)
@given(prompts, st.integers(1, 3), st.booleans())
def test_hits_on_the_leaderboard_are_the_hits_that_no_session_owned(
    sent: list[list[int]], block_size: int, with_replies: bool
) -> None:
    requests = [
        TokenRequest(prompt, session=row % 3, reply=prompt[:3] if with_replies else None)
        for row, prompt in enumerate(sent)
    ]
    reuse = reuse_of(token_trace(requests, block_size))
    found, total = diversity(reuse), per_request_of(reuse, None)
    owned = np.minimum(total.own_prefix_tokens, total.reusable_tokens)
    listed = sum(item.hit_tokens for item in found.leaderboard)
    expected = int((total.reusable_tokens - owned).sum())
    assert listed == expected if len(found.leaderboard) < 20 else listed <= expected
    assert sum(found.near_replay.all_requests) + found.near_replay.too_short == len(sent)
    json.dumps(msgspec.to_builtins(found), allow_nan=False)
