"""The one pass, counted by cause, against caches simulated block by block."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadkit.analysis.nodes import compress, node_stream, select_requests
from loadkit.analysis.per_request import per_request_of
from loadkit.analysis.reuse import reuse_of
from loadkit.analysis.simulate.policies import simulate
from loadkit.analysis.weighted import weighted_hits
from loadkit.core.errors import InputError
from loadkit.core.trace import Trace
from loadkit.traces import TokenRequest, token_trace

Chain = tuple[int, ...]
Served = tuple[Chain, Chain, int, float]  # prompt, reply, session, arrival


@st.composite
def served_logs(draw: st.DrawFn) -> tuple[int, list[Served]]:
    """Few token values, so that prompts share beginnings, repeat and extend each other."""
    served: list[Served] = []
    now = 0.0
    for _ in range(draw(st.integers(1, 14))):
        history: Chain = ()
        if served and draw(st.booleans()):
            before = draw(st.sampled_from(served))
            history = before[0] + before[1]
        size = st.lists(st.integers(0, 1), min_size=not history, max_size=6)
        prompt, reply = (
            history + tuple(draw(size)),
            tuple(draw(st.lists(st.integers(0, 1), max_size=4))),
        )
        now += draw(st.integers(0, 3))
        served.append((prompt, reply, draw(st.integers(0, 3)), now))
    return draw(st.integers(1, 3)), served


def trace_of(block_size: int, served: list[Served], replies: bool = True) -> Trace:
    return token_trace(
        [
            TokenRequest(prompt, reply=reply if replies else None, session=who, arrival_s=when)
            for prompt, reply, who, when in served
        ],
        block_size,
    )


@settings(max_examples=150, deadline=None)
@given(served_logs(), st.booleans())
def test_every_capacity_and_cause_equals_a_cache_simulated_block_by_block(
    log: tuple[int, list[Served]], replies: bool
) -> None:
    trace = trace_of(*log, replies=replies)
    reuse, stream = reuse_of(trace), node_stream(trace)
    capacities = [*range(1, stream.distinct_blocks + 2), None]
    hits = weighted_hits(stream, capacities)
    for index, capacity in enumerate(capacities):
        assert hits.split(index) == simulate(reuse, "lru", capacity).requests.total()
        assert hits.split(index) == per_request_of(reuse, capacity).total()


def hits_with_expiry(block_size: int, served: list[Served], capacity: int, ttl: float) -> int:
    """Hit tokens of a cache in an ordered list, oldest first, whose entries die `ttl` after use.

    An unfinished last page takes room, under a name of its own.
    """
    cache: list[tuple[Chain, float]] = []
    total = 0
    for row, (prompt, _, _, now) in enumerate(served):
        blocks = [prompt[:end] for end in range(block_size, len(prompt) + 1, block_size)]
        alive = {block for block, used in cache if now - used <= ttl}
        for block in blocks:
            if block not in alive or len(block) > len(prompt) - 1:
                break
            total += block_size
        kept = [(block, used) for block, used in cache if block not in blocks]
        page = [((-1, row), now)] if len(prompt) % block_size else []
        cache = [*kept, *page, *((block, now) for block in reversed(blocks))][-capacity:]
    return total


@settings(max_examples=150, deadline=None)
@given(served_logs(), st.integers(1, 12), st.integers(0, 8))
def test_expiry_refreshed_on_use_equals_a_simulation(
    log: tuple[int, list[Served]], capacity: int, ttl: int
) -> None:
    stream = node_stream(trace_of(*log, replies=False))
    hits = weighted_hits(stream, [None, capacity], [None, float(ttl)])
    assert hits.split(1, 1).hit == hits_with_expiry(*log, capacity, ttl)


def test_blocks_that_always_come_together_are_one_node() -> None:
    # Chains 0 1 2, 0 1 3 4 and 0 1: the nodes are {0, 1}, {2} and {3, 4}.
    ptr = np.array([0, 3, 7, 9])
    new_ptr, nodes, weight = compress(ptr, np.array([0, 1, 2, 0, 1, 3, 4, 0, 1]), 5)
    assert new_ptr.tolist() == [0, 2, 4, 5]
    assert nodes.tolist() == [0, 1, 0, 2, 0]
    assert weight.tolist() == [2, 1, 2]


def test_a_block_with_two_parents_starts_a_node() -> None:
    _, nodes, weight = compress(np.array([0, 2, 4]), np.array([0, 2, 1, 2]), 3)
    assert nodes.tolist() == [0, 2, 1, 2]
    assert weight.tolist() == [1, 1, 1]


def test_empty_chains_and_an_empty_log_compress_to_nothing() -> None:
    new_ptr, nodes, _ = compress(np.array([0, 0, 2, 2]), np.array([0, 1]), 2)
    assert new_ptr.tolist() == [0, 0, 1, 1]
    assert nodes.tolist() == [0]
    assert compress(np.array([0]), np.zeros(0, np.int64), 0)[0].tolist() == [0]


def four_sends() -> Trace:
    """Blocks of 2: one prompt of 5 tokens at 0, 10, 20 s and one other in between."""
    prompts = [[1, 2, 3, 4, 5], [1, 2, 9, 9, 9], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]
    return token_trace(
        [TokenRequest(p, session=row % 3, arrival_s=10.0 * row) for row, p in enumerate(prompts)], 2
    )


def test_only_the_counted_requests_are_counted_but_all_warm_the_cache() -> None:
    stream = node_stream(four_sends())
    last = weighted_hits(stream, [None], counted=np.array([False, False, False, True]))
    assert (last.prompt_tokens, last.split(0).replay_same_session) == (5, 4)
    assert last.new_prompt_tokens == 0


def test_capacities_and_ttls_keep_their_order_and_may_repeat() -> None:
    hits = weighted_hits(node_stream(four_sends()), [None, 1, None, 2], [5.0, None, 10.0])
    # Within 5 s nothing comes back; within 10 s the head, and the whole prompt the last time.
    assert [hits.split(0, t).hit for t in range(3)] == [0, 2 + 4 + 4, 2 + 2 + 4]
    assert [hits.split(c, 1).hit for c in range(4)] == [10, 6, 10, 8]


def test_a_capacity_beyond_all_memory_is_infinite() -> None:
    hits = weighted_hits(node_stream(four_sends()), [None, 10**24])
    assert hits.split(1) == hits.split(0)


def test_a_time_to_live_needs_times() -> None:
    stream = node_stream(token_trace([TokenRequest([1, 2, 3])], 2))
    with pytest.raises(InputError, match="no timestamps"):
        weighted_hits(stream, [None], [5.0])


def test_chosen_requests_keep_their_chains() -> None:
    stream = select_requests(node_stream(four_sends()), np.array([True, False, True, False]))
    assert stream.num_requests == 2
    # Two arrivals of two blocks, two completions with an unfinished page more.
    assert stream.weight[stream.nodes].sum() == 2 * 2 + 2 * 3
    assert weighted_hits(stream, [None]).split(0).hit == 4
