"""Engine pools in event time. Blocks and pages of one token unless said."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadkit.analysis.reuse import Reuse, reuse_of
from loadkit.analysis.simulate.engine_pools import POOLS, place, place_streams
from loadkit.analysis.simulate.pools import NO_ROOM, Chains, Served, log_times, serve
from loadkit.analysis.simulate.reference_pool import ReferencePool
from loadkit.analysis.simulate.sglang_pool import EXTRA_PAGES, SglangPool
from loadkit.core.errors import CannotMeasure
from loadkit.traces import TokenRequest, token_trace

Sent = list[tuple[list[int], list[int]]]  # prompt, sampled reply


def reuse_for(
    sent: Sent,
    block_size: int = 1,
    engine: str = "vllm",
    arrivals: Sequence[float] = (),
    latencies: Sequence[float] = (),
) -> Reuse:
    rows = [
        TokenRequest(
            prompt,
            reply=reply[:-1],
            num_output_tokens=len(reply),
            session=row,
            arrival_s=arrivals[row] if arrivals else None,
            latency_s=latencies[row] if latencies else None,
        )
        for row, (prompt, reply) in enumerate(sent)
    ]
    return reuse_of(token_trace(rows, block_size), engine)


@st.composite
def conversations(draw: st.DrawFn, most: int = 12) -> Sent:
    """Two token values; many prompts go on from an earlier one, with its reply or without."""
    sent: Sent = []
    for _ in range(draw(st.integers(1, most))):
        start: list[int] = []
        if sent and draw(st.booleans()):
            prompt, reply = sent[draw(st.integers(0, len(sent) - 1))]
            with_reply: bool = draw(st.booleans())
            start = prompt + reply if with_reply else prompt
        more = draw(st.lists(st.integers(0, 1), min_size=not start, max_size=5))
        sent.append((start + more, draw(st.lists(st.integers(0, 1), min_size=1, max_size=5))))
    return sent


# -- one after another


@settings(max_examples=150, deadline=None)
@given(conversations(), st.integers(1, 4))
def test_one_after_another_the_reference_pool_equals_the_exact_pass_at_every_capacity(
    sent: Sent, block_size: int
) -> None:
    apart = [10.0 * row for row in range(len(sent))]
    reuse = reuse_for(sent, block_size, "vllm", apart, [1.0] * len(sent))
    chains = Chains(reuse)
    longest = max(chains.num_pages(row, chains.last_computed(row)) for row in range(len(sent)))
    for capacity in [*range(longest, 2 * longest + 3), None]:
        served = serve(ReferencePool(chains, capacity), chains, log_times(reuse.trace))
        assert served.hit_blocks.tolist() == reuse.hit_blocks(capacity).tolist()


@settings(max_examples=150, deadline=None)
@given(conversations(), st.integers(1, 4))
def test_one_after_another_sglang_equals_the_exact_pass_where_nothing_is_evicted(
    sent: Sent, block_size: int
) -> None:
    """Not below: it evicts whole nodes, and touches the rest of a node in which a match ends."""
    apart = [10.0 * row for row in range(len(sent))]
    reuse = reuse_for(sent, block_size, "sglang", apart, [1.0] * len(sent))
    chains = Chains(reuse)
    for capacity in (reuse.trace.num_ids + 10, None):
        served = serve(SglangPool(chains, capacity), chains, log_times(reuse.trace))
        assert served.hit_blocks.tolist() == reuse.hit_blocks(None).tolist()


# -- overlap


def overlap(
    pool: type,
    sent: Sent,
    arrivals: Sequence[float],
    latency: float | list[float],
    capacity: int | None,
) -> Served:
    engine = "sglang" if pool is SglangPool else "vllm"
    each = latency if isinstance(latency, list) else [latency] * len(sent)
    reuse = reuse_for(sent, 1, engine, arrivals, each)
    chains = Chains(reuse)
    return serve(pool(chains, capacity), chains, log_times(reuse.trace))


def test_a_twin_waits_for_the_first_one_on_the_reference_server_and_computes_again_on_sglang() -> (
    None
):
    twins: Sent = [([1, 2, 3, 4], [5]), ([1, 2, 3, 4], [5])]
    waits = overlap(ReferencePool, twins, [0, 1], 10, None)
    assert (waits.hit_blocks.tolist(), waits.start_s.tolist()) == ([0, 3], [0, 10])
    again = overlap(SglangPool, twins, [0, 1], 10, None)
    assert (again.hit_blocks.tolist(), again.start_s.tolist()) == ([0, 0], [0, 1])


def test_a_running_request_keeps_what_a_later_one_would_evict() -> None:
    """Room for 6. The first (4 blocks) runs until 10; the second (2) comes and goes meanwhile. In
    order of arrival the third would find the second's blocks newer, and evict two of the first's."""
    sent: Sent = [([1, 2, 3, 4], [9]), ([5, 6], [9]), ([7, 8], [9]), ([1, 2, 3, 4], [9])]
    served = overlap(ReferencePool, sent, [0, 1, 20, 40], [10.0, 1.0, 1.0, 1.0], 6)
    assert served.hit_blocks.tolist() == [0, 0, 0, 3]


def test_a_reply_without_room_preempts_the_youngest_which_starts_again() -> None:
    """Room for 4: two prompts of 2 fill it; the first's reply needs more."""
    served = overlap(ReferencePool, [([1, 2], [3, 4, 5]), ([6, 7], [8])], [0, 1], 10, 4)
    assert (served.num_preemptions, served.num_refused) == (1, 0)


def test_what_can_never_fit_is_refused_and_the_others_go_on() -> None:
    for pool in (ReferencePool, SglangPool):
        served = overlap(pool, [([1, 2, 3], [4]), ([5], [6])], [0, 1], 1, 2)
        assert served.num_refused == 1
        assert math.isnan(served.start_s[0])
        assert served.start_s[1] == 1


def test_sglang_evicts_a_whole_leaf_where_one_page_would_do() -> None:
    """Room for 6: two prompts of 3, then one of 1: the older prompt goes whole, all 3 pages."""
    sent: Sent = [([1, 2, 3], [9]), ([4, 5, 6], [9]), ([7], [9]), ([1, 2, 3], [9])]
    apart = [0.0, 10.0, 20.0, 30.0]
    assert overlap(SglangPool, sent, apart, 1, 6).hit_blocks.tolist() == [0, 0, 0, 0]
    assert overlap(ReferencePool, sent, apart, 1, 6).hit_blocks.tolist() == [0, 0, 0, 2]


def test_overlap_needs_times() -> None:
    bare = token_trace([TokenRequest([1, 2])], 1)
    with pytest.raises(CannotMeasure, match="needs timestamps"):
        log_times(bare)
    timed = token_trace([TokenRequest([1, 2], arrival_s=0)], 1)
    with pytest.raises(CannotMeasure, match="needs latencies"):
        log_times(timed)
    assert log_times(timed, latency_s=2.0).last_s.tolist() == [2]


@settings(max_examples=200, deadline=None)
@given(
    conversations(),
    st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=12, max_size=12),
    st.integers(1, 3),
    st.integers(1, 25),
    st.sampled_from([ReferencePool, SglangPool]),
)
def test_every_request_is_served_once_or_refused(
    sent: Sent, gaps: list[float], block_size: int, capacity: int, pool: type
) -> None:
    arrivals = [sum(gaps[: row + 1]) for row in range(len(sent))]
    engine = "sglang" if pool is SglangPool else "vllm"
    reuse = reuse_for(sent, block_size, engine, arrivals, [3.0] * len(sent))
    chains = Chains(reuse)
    served = serve(pool(chains, capacity), chains, log_times(reuse.trace, prefill_tokens_per_s=2))
    assert served.num_refused == sum(map(math.isnan, served.start_s.tolist()))
    assert served.num_refused == sum(
        not pool(chains, capacity).fits(row) for row in range(len(sent))
    )
    assert (served.hit_blocks <= reuse.max_hit_blocks).all()
    started = [row for row in range(len(sent)) if not math.isnan(served.start_s[row])]
    assert all(served.start_s[row] >= arrivals[row] for row in started)


@settings(max_examples=60, deadline=None)
@given(
    conversations(),
    st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=12, max_size=12),
    st.sampled_from(sorted(POOLS)),
    st.integers(4, 30),
)
def test_a_stream_of_nodes_is_served_as_the_log_that_it_stands_for(
    sent: Sent, gaps: list[float], engine: str, capacity: int
) -> None:
    arrivals = [sum(gaps[: row + 1]) for row in range(len(sent))]
    reuse = reuse_for(sent, 1, engine, arrivals, [3.0] * len(sent))
    placement, (requests,) = place(reuse, engine, [capacity], 3.0, 100.0)
    again, (found,) = place_streams([reuse.stream], engine, capacity, 3.0, 100.0)
    assert again == placement
    assert found.total() == requests.total()


# -- SGLang against a second implementation, of tokens, by the sentences of the module


@dataclass(eq=False)
class Stretch:
    """The tokens path[start:] as a node of the tree."""

    path: tuple[int, ...]
    start: int
    touched: int
    locks: int = 0


class TokenTree:
    """No ids, no heap, no counters: every question is answered by looking at all tokens."""

    def __init__(self, capacity: int, page: int):
        self.capacity, self.page, self.now = capacity, page, 0
        self.nodes: list[Stretch] = []
        self.own: dict[int, int] = {}  # tokens of running requests outside the tree, in whole pages
        self.inside: dict[int, int] = {}
        self.locked: dict[int, tuple[int, ...]] = {}  # the locked path of each running request

    def free(self) -> int:
        return (
            self.capacity - sum(len(n.path) - n.start for n in self.nodes) - sum(self.own.values())
        )

    def whole(self, tokens: Sequence[int]) -> tuple[int, ...]:
        return tuple(tokens[: len(tokens) // self.page * self.page])

    def walk(self, tokens: tuple[int, ...]) -> int:
        """Touch and split along the tokens; returns how many are there."""
        self.now += 1
        at = 0
        while True:
            ahead = [n for n in self.nodes if n.start == at and n.path[:at] == tokens[:at]]
            pages = [n for n in ahead if n.path[at : at + self.page] == tokens[at : at + self.page]]
            if at == len(tokens) or not pages:
                return at
            (node,) = pages
            node.touched = self.now
            end = at
            while end < min(len(node.path), len(tokens)) and (
                node.path[end : end + self.page] == tokens[end : end + self.page]
            ):
                end += self.page
            if end < len(node.path):
                self.nodes.append(Stretch(node.path[:end], at, self.now, node.locks))
                node.start = end
                return end
            at = end

    def lock(self, path: tuple[int, ...], by: int) -> None:
        for node in self.nodes:
            if path[: len(node.path)] == node.path:
                node.locks += by

    def idle_leaves(self) -> list[Stretch]:
        return [
            n
            for n in self.nodes
            if not n.locks
            and not any(o.start == len(n.path) and o.path[: o.start] == n.path for o in self.nodes)
        ]

    def evictable(self) -> int:
        return sum(len(n.path) - n.start for n in self.nodes if not n.locks)

    def take(self, num: int) -> bool:
        if num > self.free() + self.evictable():
            return False
        while self.free() < num:
            self.nodes.remove(min(self.idle_leaves(), key=lambda n: n.touched))
        return True

    def in_pages(self, num: int) -> int:
        return -(-num // self.page) * self.page

    def admit(self, row: int, tokens: list[int]) -> int | None:
        there = self.walk(self.whole(tokens[:-1]))
        self.lock(self.whole(tokens[:-1])[:there], 1)
        need = self.in_pages(len(tokens)) - there
        extra = EXTRA_PAGES * self.page if self.own else 0
        if need + extra > self.free() + self.evictable() or not self.take(need):
            self.lock(self.whole(tokens[:-1])[:there], -1)
            return None
        self.own[row], self.inside[row] = need, there
        self.locked[row] = self.whole(tokens[:-1])[:there]
        return there

    def put(self, row: int, tokens: list[int]) -> None:
        whole = self.whole(tokens)
        there = self.walk(whole)
        if there < len(whole):
            self.now += 1
            self.nodes.append(Stretch(whole, there, self.now))
        self.own[row] -= len(whole) - self.inside[row]
        self.inside[row] = len(whole)

    def computed(self, row: int, tokens: list[int]) -> None:
        self.put(row, tokens)
        self.walk(self.whole(tokens))
        self.lock(self.locked[row], -1)
        self.locked[row] = self.whole(tokens)
        self.lock(self.locked[row], 1)

    def grow(self, row: int, num: int) -> bool:
        more = self.in_pages(num) - self.inside[row] - self.own[row]
        if more > 0:
            if not self.take(more):
                return False
            self.own[row] += more
        return True

    def leave(self, row: int) -> None:
        self.lock(self.locked.pop(row), -1)
        del self.own[row], self.inside[row]


@settings(max_examples=300, deadline=None)
@given(conversations(10), st.integers(1, 3), st.integers(0, 8), st.randoms(use_true_random=False))
def test_sglangs_pool_equals_one_that_goes_token_by_token(
    sent: Sent, page: int, spare: int, random: random.Random
) -> None:
    """Requests start, go on, are retracted and end in any order, with room for one and some more."""
    chains = Chains(reuse_for(sent, page, "sglang"))
    # The log's trace drops the unfinished page after the end, but a running request has one.
    need = [-(-(len(prompt) + len(reply) - 1) // page) for prompt, reply in sent]
    capacity = max(need) + spare
    pool, tree = SglangPool(chains, capacity), TokenTree(capacity * page, page)
    said: dict[int, int] = {}
    todo, running = list(range(len(sent))), list[int]()
    for _ in range(200):
        if todo and (not running or random.random() < 0.4):
            row = random.choice(todo)
            prompt, reply = sent[row]
            tokens = prompt + reply[: said.get(row, 0)]
            hit, found = pool.admit(row, said.get(row, 0)), tree.admit(row, tokens)
            assert hit == (NO_ROOM if found is None else found // page)
            if found is not None:
                todo.remove(row)
                running.append(row)
                said.setdefault(row, 0)
                fresh = True
        elif running:
            row = random.choice(running)
            prompt, reply = sent[row]
            fresh = not pool._held[row].computed
            if random.random() < 0.1 and said[row] < len(reply):
                pool.preempt(row, said[row])
                tree.leave(row)
                running.remove(row)
                todo.append(row)
            elif said[row] + 1 == len(reply):
                said[row] += 1
                pool.sampled(row, said[row])
                pool.finish(row)
                tree.put(row, prompt + reply[:-1])
                tree.leave(row)
                running.remove(row)
            else:
                said[row] += 1
                if fresh:
                    tree.computed(row, prompt + reply[: said[row] - 1])
                goes_on = pool.sampled(row, said[row])
                assert goes_on == tree.grow(row, len(prompt) + said[row])
                if not goes_on:
                    pool.preempt(row, said[row])
                    tree.leave(row)
                    running.remove(row)
                    todo.append(row)
        assert pool._num_free * page == tree.free()
        assert pool._num_evictable * page == tree.evictable()
