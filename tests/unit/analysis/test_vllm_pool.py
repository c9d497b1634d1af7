"""vLLM's block pool by its rules, in blocks of 2 tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loadkit.analysis.reuse import reuse_of
from loadkit.analysis.simulate.pools import Chains, Served, Times, serve
from loadkit.analysis.simulate.vllm_pool import VllmPool
from loadkit.traces import TokenRequest, token_trace

A, B, C = [1, 1, 1, 1, 9], [2, 2, 2, 2, 9], [3, 3, 3, 3, 9]


def served(
    requests: Sequence[tuple[list[int], list[int], Sequence[float]]], capacity: int
) -> Served:
    """requests: prompt, reply, and the times of lookup and of each token of the reply."""
    rows = [
        TokenRequest(prompt, reply=reply[:-1], num_output_tokens=len(reply), arrival_s=times[0])
        for prompt, reply, times in requests
    ]
    chains = Chains(reuse_of(token_trace(rows, 2)))
    at = [times for _, _, times in requests]
    times = Times(
        np.array([each[0] for each in at]),
        np.array([each[1] for each in at]),
        np.array([each[-1] for each in at]),
        observed=True,
        token_s=[each[1:] for each in at],
    )
    return serve(VllmPool(chains, capacity), chains, times)


def hits(
    requests: Sequence[tuple[list[int], list[int], Sequence[float]]], capacity: int
) -> list[int]:
    return served(requests, capacity).hit_blocks.tolist()


def test_the_block_of_the_last_token_is_computed_again() -> None:
    assert hits([(A, [5], (0, 1)), (A, [5], (2, 3)), (A[:4], [5], (4, 5))], 9) == [0, 2, 1]


def test_a_request_of_the_same_step_hits_what_is_being_computed() -> None:
    assert hits([(A, [5], (0, 9)), (A, [5], (0, 9))], 9) == [0, 2]


def test_blocks_are_freed_at_the_end_tail_first() -> None:
    """Four blocks: A leaves 2 and an unfinished one, which nobody keeps. B takes that, the untouched
    one and A's second; of A its first is left."""
    assert hits([(A, [5], (0, 1)), (B, [5], (2, 3)), (A, [5], (4, 5))], 4) == [0, 0, 1]


def test_an_unfinished_block_takes_no_room_from_whole_ones() -> None:
    """Five blocks: 2 of A, 2 of B and one for whoever runs. In order of use A's would have gone."""
    assert hits([(A, [5], (0, 1)), (B, [5], (2, 3)), (A, [5], (4, 5))], 5) == [0, 0, 2]


def test_what_runs_is_not_evicted_and_is_last_used_when_it_ends() -> None:
    """A runs on while B comes and goes; C then takes B's blocks, though B was sent after A."""
    long = (A, [5, 5], (0, 1, 5))
    rest = [(B, [5], (2, 3)), (C, [5], (6, 7)), (A, [5], (8, 9)), (B, [5], (10, 11))]
    assert hits([long, *rest], 6) == [0, 0, 0, 2, 0]


def test_without_room_for_the_whole_prompt_a_request_waits() -> None:
    """B needs three of five blocks and A holds three: B is looked up when A has ended."""
    waits = served([(A, [5, 5], (0, 1, 4)), (B, [5], (2, 5))], 5)
    assert waits.start_s.tolist() == [0, 4]
    assert waits.num_preemptions == 0


def test_a_block_that_was_computed_twice_takes_two_places() -> None:
    """The second A has all of its prompt to compute but for one block, since the last token is in
    the other: that block is there twice, and C leaves one of five."""
    two = [(A[:4], [5], (0, 1)), (A[:4], [5], (2, 3)), (C, [5], (4, 5)), (A, [5], (6, 7))]
    assert hits(two, 9) == [0, 1, 0, 2]
    assert hits(two, 4) == [0, 1, 0, 1]


def test_who_finds_no_block_for_its_reply_takes_those_of_the_one_admitted_last() -> None:
    """Six blocks, three each. A needs a fourth for its second token: B goes, and starts again when A
    has ended. What it hits then is not what it hit at first."""
    both = [(A, [5, 5, 5], (0, 1, 2, 3)), (B, [5, 5, 5], (0, 1, 2, 6))]
    done = served(both, 6)
    assert done.num_preemptions == 1
    assert done.hit_blocks.tolist() == [0, 0]


def test_the_last_token_of_a_reply_takes_no_room() -> None:
    """5 tokens and 2 sampled fill 3 blocks of 2 to the end: no fourth is asked for."""
    assert served([(A, [5, 5], (0, 1, 2)), (B, [5, 5], (0, 1, 2))], 6).num_preemptions == 0
