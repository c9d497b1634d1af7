"""The one-pass LRU against simulations that share no code with it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from block_positions import block_positions
from hypothesis import given, settings
from hypothesis import strategies as st

from loadkit.analysis.reuse import reuse_of
from loadkit.core.trace import Trace
from loadkit.traces import TokenRequest, token_trace

Chain = tuple[int, ...]


def chain_trace(*chains: Sequence[int]) -> Trace:
    """A log of ids alone: one request a chain of full blocks of one token."""
    counts = [len(chain) for chain in chains]
    ids = np.array([block for chain in chains for block in chain], np.int64)
    return Trace(
        block_size=1,
        prompt_tokens=np.array(counts, np.int64),
        block_ptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        block_ids=ids,
        prompt_key=np.arange(len(chains)),
        session=np.arange(len(chains)),
        num_sessions=len(chains),
        sessions_inferred=False,
        output_tokens=np.full(len(chains), -1),
    )


def positions(trace: Trace) -> list[int]:
    return block_positions(trace).tolist()


def test_positions_count_entries_from_the_most_recent_one() -> None:
    # After the first request the head is the most recent, then its child; then 5 and 6 come first.
    assert positions(chain_trace([0, 1], [0, 1])) == [0, 0, 1, 2]
    assert positions(chain_trace([0, 1], [5, 6], [0, 1, 2])) == [0, 0, 0, 0, 3, 4, 0]


def test_a_shared_head_is_refreshed_without_its_other_children() -> None:
    # Recency after two requests: 0, 2, 1.
    assert positions(chain_trace([0, 1], [0, 2], [0, 1])) == [0, 0, 1, 0, 1, 3]


def test_an_unfinished_page_takes_room_but_never_hits() -> None:
    def third_position(reply: list[int]) -> int:
        served = [([1, 2, 5], []), ([3, 4], reply), ([1, 2, 6], [])]
        requests = [TokenRequest(p, reply=r, session=i) for i, (p, r) in enumerate(served)]
        return positions(token_trace(requests, block_size=2))[-1]

    # Block (1, 2) lies under block (3, 4), and under the page that a reply of one token started.
    assert third_position([]) == 2
    assert third_position([9]) == 3


# --- a pool of pages with pinning, for requests one after another -------------------------------


@dataclass
class Pool:
    """A paged pool in the words of an engine: pages in LRU order, the oldest first.

    A request matches at most floor((n - 1) / B) blocks; everything it computes stays: full blocks
    as blocks, an unfinished last page as a dead one. A block computed again keeps its page.
    """

    num_pages: int
    block_size: int

    def __post_init__(self) -> None:
        self.pages: list[Any] = []

    def serve(self, prompt: Chain, reply: Chain) -> int:
        """Cached tokens of the request."""
        tokens = prompt + reply
        full = [tokens[: end + 1] for end in range(len(tokens)) if (end + 1) % self.block_size == 0]
        may_match = [block for block in full if len(block) <= len(prompt) - 1]
        matched = 0
        while matched < len(may_match) and may_match[matched] in self.pages:
            matched += 1
        dead = [object()] if len(tokens) % self.block_size else []
        others = [page for page in self.pages if page not in full]
        while len(others) + len(full) + len(dead) > self.num_pages:
            others.pop(0)
        self.pages = others + dead + full[::-1]
        return matched * self.block_size


@st.composite
def logs(draw: st.DrawFn) -> tuple[int, list[tuple[Chain, Chain]]]:
    """Prompts over two token values, so that they share beginnings, repeat and extend each other."""
    block_size = draw(st.integers(1, 3))
    token = st.integers(0, 1)
    served: list[tuple[Chain, Chain]] = []
    for _ in range(draw(st.integers(1, 14))):
        history: Chain = ()
        if served and draw(st.booleans()):
            before = draw(st.sampled_from(served))
            history = before[0] + before[1]
        prompt = history + tuple(draw(st.lists(token, min_size=not history, max_size=5)))
        served.append((prompt, tuple(draw(st.lists(token, max_size=4)))))
    return block_size, served


def requests_of(served: list[tuple[Chain, Chain]]) -> Iterator[TokenRequest]:
    for row, (prompt, reply) in enumerate(served):
        yield TokenRequest(prompt, reply=reply, session=row)


@settings(max_examples=300, deadline=None)
@given(logs())
def test_sequential_requests_hit_what_a_paged_pool_holds_at_every_capacity(
    log: tuple[int, list[tuple[Chain, Chain]]],
) -> None:
    block_size, served = log
    reuse = reuse_of(token_trace(requests_of(served), block_size))
    pages = [-(-(len(prompt) + len(reply)) // block_size) for prompt, reply in served]
    for capacity in range(max(pages), sum(pages) + 2):
        pool = Pool(capacity, block_size)
        expected = [pool.serve(prompt, reply) for prompt, reply in served]
        assert (reuse.hit_blocks(capacity) * block_size).tolist() == expected


# --- a plain LRU over the touch sequence, with time ---------------------------------------------


def touches_in_time(trace: Trace) -> Iterator[tuple[int | None, list[Any], bool]]:
    """(row or None for a completion, chain, unfinished page) in order of time."""
    assert trace.arrival_s is not None
    assert trace.completed_s is not None
    assert trace.resident_ptr is not None
    assert trace.resident_ids is not None
    assert trace.partial_page is not None
    happenings = []
    for row in range(trace.num_requests):
        prompt = trace.block_ids[trace.block_ptr[row] : trace.block_ptr[row + 1]].tolist()
        kept = trace.resident_ids[trace.resident_ptr[row] : trace.resident_ptr[row + 1]].tolist()
        partial = bool(trace.partial_page[row])
        happenings.append((trace.arrival_s[row], 0, row, row, prompt, False))
        happenings.append((trace.completed_s[row], 1, row, None, kept, partial))
    for _, _, _, row, chain, partial in sorted(happenings, key=lambda each: each[:3]):
        yield row, chain, partial


def simulate(trace: Trace, capacity: int) -> list[int]:
    """Leading cached blocks per request, in an LRU of that many entries."""
    cache: OrderedDict[Any, None] = OrderedDict()
    found = [0] * trace.num_requests
    for row, chain, partial in touches_in_time(trace):
        if row is not None:
            while found[row] < len(chain) and chain[found[row]] in cache:
                found[row] += 1
        for entry in [object()] * partial + chain[::-1]:
            cache[entry] = None
            cache.move_to_end(entry)
            if len(cache) > capacity:
                cache.popitem(last=False)
    return found


@settings(max_examples=200, deadline=None)
@given(logs(), st.randoms(use_true_random=False))
def test_overlapping_requests_equal_a_plain_lru_over_their_touches(
    log: tuple[int, list[tuple[Chain, Chain]]], random: Any
) -> None:
    block_size, served = log
    requests = list(requests_of(served))
    for row, request in enumerate(requests):
        request.arrival_s, request.latency_s = float(row), random.choice([0.0, 0.5, 1.0, 3.5])
    trace = token_trace(requests, block_size)
    position = block_positions(trace)
    for capacity in range(1, trace.num_ids + len(served) + 2):
        hit = (position > 0) & (position <= capacity)
        per_row = [int(part.sum()) for part in np.split(hit, trace.block_ptr[1:-1])]
        assert per_row == simulate(trace, capacity)


# --- libcachesim --------------------------------------------------------------------------------


def libcachesim_hits(trace: Trace, capacity: int) -> list[bool]:
    """Whether each prompt block is in libcachesim's LRU when its request arrives (ids alone)."""
    libcachesim = pytest.importorskip("libcachesim")
    cache = libcachesim.LRU(cache_size=capacity, hashpower=12)

    def request(block: int) -> Any:
        return libcachesim.Request(obj_id=block + 1, obj_size=1)

    hits = []
    for start, end in zip(trace.block_ptr[:-1], trace.block_ptr[1:], strict=True):
        chain = trace.block_ids[start:end].tolist()
        hits += [cache.find(request(b), update_cache=False) is not None for b in chain]
        for block in reversed(chain):
            cache.get(request(block))
    return hits


def random_chains(seed: int, num: int) -> list[list[int]]:
    """Walks down a random tree: ids are positions in it, so they are chained."""
    rng = np.random.default_rng(seed)
    ids: dict[Chain, int] = {}
    chains = []
    for _ in range(num):
        path = tuple(int(step) for step in rng.geometric(0.5, rng.integers(1, 30)))
        prefixes = (path[: depth + 1] for depth in range(len(path)))
        chains.append([ids.setdefault(prefix, len(ids)) for prefix in prefixes])
    return chains


@pytest.mark.parametrize("capacity", [1, 2, 17, 100, 401, 1000])
def test_random_chains_hit_block_for_block_as_in_libcachesim(capacity: int) -> None:
    trace = chain_trace(*random_chains(seed=5, num=300))
    position = block_positions(trace)
    ours = ((position > 0) & (position <= capacity)).tolist()
    assert ours == libcachesim_hits(trace, capacity)


def test_long_chains_cross_many_buckets_of_slots() -> None:
    first, second = list(range(1000)), [*range(500), *range(1000, 1700)]
    trace = chain_trace(first, second, first)
    # The third request finds its first 500 blocks on top and the others under 1,200 of the second.
    expected = [*range(1, 501), *range(1201, 1701)]
    assert positions(trace)[-1000:] == expected
