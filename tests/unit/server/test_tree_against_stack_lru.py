"""The engine's cache against a list: one request after another, at every small capacity."""

from __future__ import annotations

import random

import pytest
from engine_builders import ROOT, expected_reply, make_engine, run

from loadkit.core.blocks import block_hashes

VOCABULARY = 3


class ListLRU:
    """A stack LRU over prefixes (tuples of tokens), written as plainly as possible.

    A finished request touches, tail first, one dead entry if its last block is unfinished and then
    its full blocks from last to first; the entry touched longest ago goes when there are too many.
    """

    def __init__(self, capacity: int, block_size: int):
        self.capacity, self.block_size = capacity, block_size
        self.entries: list[object] = []
        self.seen: set[object] = set()

    def blocks(self, tokens: list[int]) -> list[tuple[int, ...]]:
        ends = range(self.block_size, len(tokens) + 1, self.block_size)
        return [tuple(tokens[:end]) for end in ends]

    def hit_and_lost(self, prompt: list[int]) -> tuple[int, int]:
        hit = lost = 0
        for block in self.blocks(prompt[:-1]):
            if block in self.entries and not lost:
                hit += self.block_size
            elif block in self.seen:
                lost += self.block_size
            else:
                break
        return hit, lost

    def finish(self, computed: list[int]) -> None:
        blocks = self.blocks(computed)
        touched: list[object] = list(reversed(blocks))
        if len(computed) % self.block_size:
            touched.insert(0, object())
        for entry in touched:
            if entry in self.entries:
                self.entries.remove(entry)
            self.entries.append(entry)
            self.seen.add(entry)
        del self.entries[: max(0, len(self.entries) - self.capacity)]

    @property
    def resident(self) -> set[object]:
        return {entry for entry in self.entries if isinstance(entry, tuple)}


def random_prompt(rng: random.Random, chains: list[list[int]]) -> list[int]:
    """Often an earlier chain, whole or cut anywhere, with or without something new behind it."""
    prefix = rng.choice(chains) if rng.random() < 0.8 else []
    prefix = prefix[: rng.randint(0, len(prefix))] if rng.random() < 0.6 else prefix
    suffix = [rng.randrange(VOCABULARY) for _ in range(rng.randint(0, 6))]
    return (prefix + suffix)[:40] or [0]


@pytest.mark.parametrize("block_size", [1, 3, 4])
@pytest.mark.parametrize("capacity", [*range(12, 40, 3), 60, 400])
def test_requests_in_turn_leave_exactly_what_a_stack_lru_holds(
    capacity: int, block_size: int
) -> None:
    capacity = max(capacity, 46) if block_size == 1 else capacity
    rng = random.Random(capacity * 10 + block_size)
    engine = make_engine(capacity, block_size=block_size, max_batch_tokens=rng.choice([4, 7, 64]))
    oracle = ListLRU(capacity, block_size)
    chains: list[list[int]] = [[0]]
    for _ in range(120):
        prompt, num_new = random_prompt(rng, chains), rng.randint(1, 6)
        hit, lost = oracle.hit_and_lost(prompt)
        request = run(engine, prompt, num_new)
        reply = expected_reply(prompt, num_new, VOCABULARY)
        assert request.output == reply
        assert request.split is not None
        assert (request.split.hit, request.split.miss_capacity) == (hit, lost)
        computed = prompt + reply[:-1]
        oracle.finish(computed)
        chains.append(prompt + reply)
        hashes = {block_hashes(list(p), block_size, ROOT)[-1] for p in oracle.resident}  # type: ignore[call-overload]
        assert set(engine.tree.nodes) == hashes
        assert engine.tree.pool.num_dead == len(oracle.entries) - len(oracle.resident)


def test_the_oracle_and_the_tree_really_evict_in_that_test() -> None:
    engine = make_engine(12)
    for start in range(20):
        run(engine, [start] * 30)
    assert len(engine.tree.nodes) + engine.tree.pool.num_dead == 12
    assert len(engine.tree.ghosts) > 50


def test_a_prompt_of_whole_blocks_seen_again_recomputes_its_last_block_without_a_twin() -> None:
    """Blocks of 4, prompt of 8: 4 tokens hit; the pool of 2 holds both blocks, before and after."""
    engine = make_engine(2)
    prompt = [1, 2, 0, 1, 2, 2, 2, 0]
    first = run(engine, prompt)
    pages = sorted(node.place for node in engine.tree.nodes.values())
    second = run(engine, prompt)
    assert (first.split.hit, second.split.hit) == (0, 4)  # type: ignore[union-attr]
    assert sorted(node.place for node in engine.tree.nodes.values()) == pages
    assert len(engine.tree.ghosts) == 0


def test_a_repeated_reply_evicts_nobody() -> None:
    """Blocks of 4, pool of 4: prompt 5 + reply 4 leave 2 blocks; another prompt leaves 2 more.

    The first again recomputes its reply into resident blocks: all 4 stay.
    """
    engine = make_engine(4)
    run(engine, [1, 1, 1, 1, 2], max_tokens=4)
    run(engine, [2, 2, 2, 2, 0, 0, 0, 0])
    before = set(engine.tree.nodes)
    again = run(engine, [1, 1, 1, 1, 2], max_tokens=4)
    assert len(before) == 4
    assert set(engine.tree.nodes) == before
    assert again.split.hit == 4  # type: ignore[union-attr]


def test_the_unfinished_last_block_takes_a_place_in_the_queue_until_evicted() -> None:
    """Pool of 3, blocks of 4: a prompt of 5 leaves a block and a dead page; then 8 tokens come.

    The free page is used first, then the dead page goes, being older than its block.
    """
    engine = make_engine(3)
    run(engine, [1, 1, 1, 1, 2])
    assert (len(engine.tree.nodes), engine.tree.pool.num_dead) == (1, 1)
    run(engine, [2, 2, 2, 2, 0, 0, 0, 0])
    assert (len(engine.tree.nodes), engine.tree.pool.num_dead) == (3, 0)
