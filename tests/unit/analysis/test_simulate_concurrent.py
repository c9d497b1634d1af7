"""Overlapping requests: blocks in flight, pins, room. Blocks of one token unless said."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadkit.analysis.reuse import Reuse, reuse_of
from loadkit.analysis.simulate.concurrent import IN_FLIGHT, Concurrent, simulate_concurrent
from loadkit.core.errors import CannotMeasure, InputError
from loadkit.traces import TokenRequest, token_trace

Request = tuple[list[int], float, float]


def reuse_for(requests: Sequence[Request], block_size: int = 1) -> Reuse:
    """Requests as (prompt, arrival, latency); `sglang` keeps no unfinished pages."""
    sent = [
        TokenRequest(prompt, session=row, arrival_s=arrival, latency_s=latency)
        for row, (prompt, arrival, latency) in enumerate(requests)
    ]
    return reuse_of(token_trace(sent, block_size), "sglang")


def hits(result: Concurrent) -> list[int]:
    return result.requests.resident_tokens.tolist()


TWINS: list[Request] = [([1, 2, 3, 4], 0, 10), ([1, 2, 3, 4], 1, 10)]


def test_a_twin_waits_for_the_first_ones_blocks() -> None:
    result = simulate_concurrent(reuse_for(TWINS), in_flight="wait")
    assert hits(result) == [0, 3]
    assert result.start_s.tolist() == [0, 10]


def test_it_waits_for_the_prefill_only_when_its_speed_is_known() -> None:
    result = simulate_concurrent(reuse_for(TWINS), in_flight="wait", prefill_tokens_per_s=1)
    assert hits(result) == [0, 3]
    assert result.start_s.tolist() == [0, 4]


def test_a_twin_shares_blocks_in_flight_or_computes_them_again() -> None:
    shares = simulate_concurrent(reuse_for(TWINS), in_flight="share")
    assert (hits(shares), shares.start_s.tolist()) == ([0, 3], [0, 1])
    again = simulate_concurrent(reuse_for(TWINS), in_flight="recompute")
    assert (hits(again), again.start_s.tolist()) == ([0, 0], [0, 1])
    assert again.in_flight_tokens.tolist() == [0, 3]
    assert again.requests.split(1).miss_capacity == 3


def test_running_requests_keep_their_blocks_and_others_wait_for_room() -> None:
    """Room for 4: a prompt of 3 runs until 10; one of 2 waits for it, one of 1 waits behind."""
    result = simulate_concurrent(reuse_for([([1, 2, 3], 0, 10), ([5, 6], 1, 1), ([7], 2, 1)]), 4)
    assert result.start_s.tolist() == [0, 10, 10]


def test_who_waits_for_a_block_is_passed() -> None:
    result = simulate_concurrent(reuse_for([*TWINS, ([9, 9], 2, 1)]), in_flight="wait")
    assert result.start_s.tolist() == [0, 10, 2]


def test_a_prompt_larger_than_the_cache_is_refused_and_counted() -> None:
    result = simulate_concurrent(reuse_for([([1, 2, 3], 0, 1), ([1, 2, 3], 5, 1)]), 2)
    assert (result.refused, hits(result)) == (2, [0, 0])


@st.composite
def overlapping(draw: st.DrawFn) -> list[Request]:
    """Prompts over two values, often going on from earlier ones, at times that often collide."""
    sent: list[Request] = []
    for _ in range(draw(st.integers(1, 14))):
        start = draw(st.sampled_from([each[0] for each in sent])) if sent else []
        more = draw(st.lists(st.integers(0, 1), min_size=not start, max_size=4))
        arrival = sent[-1][1] + draw(st.sampled_from([0, 1, 2])) if sent else 0.0
        sent.append((start + more, arrival, draw(st.sampled_from([0.0, 1.0, 4.0]))))
    return sent


@settings(max_examples=150, deadline=None)
@given(overlapping(), st.integers(1, 3))
def test_without_a_limit_sharing_in_flight_equals_the_exact_pass(
    sent: list[Request], block_size: int
) -> None:
    """And what `recompute` computes twice is exactly what `share` hits more."""
    reuse = reuse_for(sent, block_size)
    shares = simulate_concurrent(reuse, in_flight="share")
    again = simulate_concurrent(reuse, in_flight="recompute")
    assert hits(shares) == (reuse.hit_blocks(None) * block_size).tolist()
    twice = again.requests.resident_tokens + again.in_flight_tokens
    assert twice.tolist() == hits(shares)


@settings(max_examples=150, deadline=None)
@given(overlapping(), st.integers(1, 3), st.sampled_from(IN_FLIGHT))
def test_one_after_another_all_ways_equal_the_exact_pass_at_every_capacity(
    sent: list[Request], block_size: int, in_flight: str
) -> None:
    apart = [(prompt, 10.0 * row, 1.0) for row, (prompt, _, _) in enumerate(sent)]
    reuse = reuse_for(apart, block_size)
    longest = max(len(prompt) // block_size for prompt, _, _ in apart)
    for capacity in range(max(longest, 1), reuse.trace.num_ids + 2):
        found = hits(simulate_concurrent(reuse, capacity, in_flight))
        assert found == (reuse.hit_blocks(capacity) * block_size).tolist()


@settings(max_examples=150, deadline=None)
@given(overlapping(), st.integers(1, 12), st.sampled_from(IN_FLIGHT))
def test_every_request_starts_after_its_arrival_and_hits_no_more_than_its_prompt(
    sent: list[Request], capacity: int, in_flight: str
) -> None:
    result = simulate_concurrent(reuse_for(sent), capacity, in_flight)
    for row, (prompt, arrival, _) in enumerate(sent):
        assert result.start_s[row] >= arrival
        assert result.requests.resident_tokens[row] < len(prompt)
    assert result.refused == sum(len(prompt) > capacity for prompt, _, _ in sent)


def test_overlap_needs_times() -> None:
    bare = reuse_of(token_trace([TokenRequest([1, 2])], 1))
    with pytest.raises(CannotMeasure, match="needs timestamps"):
        simulate_concurrent(bare)
    timed = reuse_of(token_trace([TokenRequest([1, 2], arrival_s=0)], 1))
    with pytest.raises(CannotMeasure, match="needs latencies"):
        simulate_concurrent(timed)
    assert hits(simulate_concurrent(timed, latency_s=2.0)) == [0]
    with pytest.raises(InputError, match="unknown way 'maybe'"):
        simulate_concurrent(timed, in_flight="maybe")
