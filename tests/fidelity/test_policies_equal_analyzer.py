"""Every eviction policy on the server against the analyzer's simulation of it, request by request.

Requests come one after another, thousands of small ones over two or three token values, at many
capacities. The two sides share the block hash and nothing else.
"""

from __future__ import annotations

import random

import pytest

from loadkit.analysis.reuse import reuse_of
from loadkit.analysis.simulate.policies import DIVERSITY_WINDOW_REQUESTS, simulate
from loadkit.analysis.simulate.policies import POLICIES as SIMULATED
from loadkit.analysis.simulate.tiers import simulate_tiers
from loadkit.core.blocks import root_hash
from loadkit.core.split import Split
from loadkit.traces import TokenRequest, token_trace
from reference_server.block_tree import BlockTree
from reference_server.diversity_index import WINDOW_REQUESTS
from reference_server.node import DISK, HOST
from reference_server.policies import POLICIES, make_policy
from reference_server.request import Request, Sample, SamplingParams
from reference_server.scheduler import Scheduler
from reference_server.tiers.lower import LowerTiers, Tier

Sent = list[tuple[list[int], list[int], str]]


class Nowhere:
    """Pages and a slab without content: where blocks lie is all that is asked here."""

    num_slots = 1000

    def read(self, page: int) -> str:
        return "payload"

    def write(self, page: int, payload: str) -> None: ...

    def copy(self, source: int, target: int, num_tokens: int) -> None: ...

    def put(self, slot: int, node: object, payload: str) -> bool:
        return True

    def get(self, slot: int, node: object) -> str:
        return "payload"

    def prefetch(self, slot: int, node: object) -> None: ...

    def found(self) -> list[object]:
        return []


def conversations(seed: int, num: int) -> Sent:
    """(prompt, sampled reply, session): new prompts, replays, next turns, other ends."""
    rng = random.Random(seed)
    sent: Sent = []
    for _ in range(num):
        start: list[int] = []
        kind = rng.random()
        if sent and kind < 0.8:
            prompt, reply, _ = rng.choice(sent[-30:])
            start = prompt if kind < 0.3 else (prompt + reply)[: rng.randint(0, 24)]
        more = [] if start and kind < 0.3 else [rng.randint(0, 2) for _ in range(rng.randint(0, 7))]
        reply = [rng.randint(0, 2) for _ in range(rng.randint(1, 6))]
        sent.append(((start + more)[:24] or [0], reply, rng.choice("abcd")))
    return sent


def serve(scheduler: Scheduler, sent: Sent) -> list[Request]:
    requests = []
    for prompt, reply, session in sent:
        params = SamplingParams(max_tokens=len(reply))
        request = Request(list(prompt), scheduler.block_size, root_hash(), params, session=session)
        scheduler.add(request)
        while request.finish_reason is None:
            chunks = scheduler.plan()
            said = [[Sample(reply[c.request.num_output])] if c.samples else [] for c in chunks]
            scheduler.apply(chunks, said)
        requests.append(request)
    return requests


def make_scheduler(tree: BlockTree, block_size: int, chunk: int) -> Scheduler:
    return Scheduler(tree, block_size, max_batch_tokens=chunk, max_num_seqs=1)


def trace_of(sent: Sent, block_size: int):  # type: ignore[no-untyped-def]
    return token_trace(
        (TokenRequest(prompt, reply=reply[:-1], session=name) for prompt, reply, name in sent),
        block_size,
    )


def most_pages(sent: Sent, block_size: int) -> int:
    return max(-(-(len(prompt) + len(reply) - 1) // block_size) for prompt, reply, _ in sent)


def test_the_same_policies_are_simulated_and_served() -> None:
    assert set(POLICIES) == set(SIMULATED)


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("block_size", [1, 2, 3])
def test_splits_agree_to_the_token_under_every_policy(policy: str, block_size: int) -> None:
    total = Split(0)
    for seed in range(3):
        sent = conversations(seed * 10 + block_size, 120)
        reuse = reuse_of(trace_of(sent, block_size))
        least = most_pages(sent, block_size)
        for capacity in (least, least + 1, least + 4, 2 * least, 4 * least):
            simulated = simulate(reuse, policy, capacity).requests
            tree = BlockTree(capacity, 1, make_policy(policy, capacity, block_size))
            served = serve(make_scheduler(tree, block_size, 1 + seed * 5), sent)
            assert [r.split for r in served] == [simulated.split(i) for i in range(len(sent))]
            total += simulated.total()
    assert min(total.replay, total.genuine, total.miss_capacity) > 1000


def test_policies_differ_in_that_test() -> None:
    """Else it would pass with one policy under six names."""
    sent = conversations(3, 600)
    reuse = reuse_of(trace_of(sent, 2))
    hits = {name: simulate(reuse, name, 20).requests.total().hit for name in POLICIES}
    assert len(set(hits.values())) == len(POLICIES)


def test_both_diversity_indices_look_back_on_the_same_window() -> None:
    """More requests than the window holds; with all of the log so far the analyzer would differ."""
    sent = [(prompt, reply[:2], name) for prompt, reply, name in conversations(5, 10_600)]
    reuse, capacity = reuse_of(trace_of(sent, 3)), 20
    tree = BlockTree(capacity, 1, make_policy("diversity", capacity, 3))
    served = [r.split for r in serve(make_scheduler(tree, 3, 64), sent)]
    assert len(sent) > WINDOW_REQUESTS == DIVERSITY_WINDOW_REQUESTS
    windowed, whole = (
        simulate(reuse, "diversity", capacity, diversity_window=window).requests
        for window in (WINDOW_REQUESTS, len(sent))
    )
    assert served == [windowed.split(row) for row in range(len(sent))]
    assert served != [whole.split(row) for row in range(len(sent))]


@pytest.mark.parametrize("sizes", [(13, 7), (13, 5, 9), (14, 1, 1), (20, 30, 40)])
def test_hits_by_tier_agree_to_the_token(sizes: tuple[int, ...]) -> None:
    block_size = 2
    found = 0
    for seed in range(4):
        sent = conversations(seed, 150)
        sent = [s for s in sent if -(-(len(s[0]) + len(s[1]) - 1) // block_size) <= sizes[0]]
        simulated = simulate_tiers(reuse_of(trace_of(sent, block_size)), sizes)
        levels = zip((HOST, DISK), sizes[1:], strict=False)
        lower = LowerTiers([Tier(level, Nowhere(), size) for level, size in levels], Nowhere())
        tree = BlockTree(sizes[0], 1, lower=lower)
        served = serve(make_scheduler(tree, block_size, 4), sent)
        by_tier = [request.tier_tokens[: len(sizes)] for request in served]
        assert by_tier == [tuple(row) for row in (simulated.tier_blocks * block_size).tolist()]
        splits = [simulated.requests.split(i) for i in range(len(sent))]
        assert [request.split for request in served] == splits
        found += int(simulated.tier_blocks[:, 1:].sum())
    assert found > 50
