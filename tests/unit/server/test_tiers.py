"""Blocks that come back from host memory and disk: right content, bounded sizes, damage is a miss."""

from __future__ import annotations

import random
from typing import Any

from engine_builders import (
    DictSlab,
    expected_reply,
    make_engine,
    make_lower,
    make_request,
    run,
    run_all,
)

from reference_server.engine import Engine
from reference_server.request import Request

A, B, C = ([n] * 13 for n in range(3))


def slab(engine: Engine, index: int) -> DictSlab:
    made = engine.tree.lower.tiers[index].slab
    assert isinstance(made, DictSlab)
    return made


def test_what_the_device_evicts_comes_back_from_the_next_tier() -> None:
    """Device of 4 blocks, host of 4, disk of 6; each request leaves 3 blocks or touches them, and
    a dead page."""
    engine = make_engine(4, lower=make_lower(4, 6))
    for prompt in (A, B, C):
        run(engine, prompt)
    again = [run(engine, prompt) for prompt in (C, B, A)]
    assert [r.tier_tokens for r in again] == [(12, 0, 0), (0, 12, 0), (0, 0, 12)]
    assert [r.split.hit for r in again if r.split] == [12, 12, 12]
    assert not engine.runner.wrong_accesses  # type: ignore[attr-defined]


def test_what_leaves_the_last_tier_is_a_capacity_miss() -> None:
    engine = make_engine(4, lower=make_lower(2))
    for prompt in (A, B, C):
        run(engine, prompt)
    lost = run(engine, A)
    assert lost.split is not None
    assert (lost.split.hit, lost.split.miss_capacity) == (0, 12)


def test_a_damaged_block_and_what_is_behind_it_are_computed_again() -> None:
    """Blocks of 4; the second of three is damaged: 4 tokens hit."""
    engine = make_engine(4, lower=make_lower(8))
    run(engine, A)
    run(engine, B)
    second = engine.tree.nodes[make_request(engine, A).hashes[1]]
    slab(engine, 0).damaged.add(second.place)
    again = run(engine, A)
    assert again.output == expected_reply(A, 1, 3)
    assert again.split is not None
    assert (again.split.hit, again.split.miss_capacity) == (4, 8)
    assert run(engine, A).split.hit == 12  # type: ignore[union-attr]


def test_a_block_that_cannot_be_stored_is_gone_and_nobody_minds() -> None:
    engine = make_engine(4, lower=make_lower(8))
    slab(engine, 0).refuses = lambda: True
    for prompt in (A, B, A, B):
        assert run(engine, prompt).output == expected_reply(prompt, 1, 3)
    assert engine.tree.lower.sizes() == {"host": 0}


def test_a_device_that_cannot_be_read_loses_the_block_only(monkeypatch: Any) -> None:
    def broken(page: int) -> None:
        raise RuntimeError("the device says no")

    engine = make_engine(4, lower=make_lower(8))
    run(engine, A)
    monkeypatch.setattr(engine.runner, "read", broken)
    run(engine, B)
    assert run(engine, A).split.hit == 0  # type: ignore[union-attr]


def test_queued_requests_blocks_are_fetched_ahead() -> None:
    engine = make_engine(4, lower=make_lower(4, 4))
    for prompt in (A, B, C):
        run(engine, prompt)
    engine.submit(make_request(engine, A))
    engine.step()
    assert len(slab(engine, 1).prefetched) == 3


def test_a_reset_empties_all_tiers() -> None:
    engine = make_engine(4, lower=make_lower(4, 4))
    for prompt in (A, B, C):
        run(engine, prompt)
    assert engine._reset()
    assert engine.tree.lower.sizes() == {"host": 0, "disk": 0}
    assert not engine.tree.nodes
    assert run(engine, A).split.hit == 0  # type: ignore[union-attr]


def test_many_requests_with_damage_everywhere_are_answered_right() -> None:
    rng = random.Random(8)
    engine = make_engine(12, lower=make_lower(6, 9), max_batch_tokens=12, draft_tokens=2)
    for index in (0, 1):
        slab(engine, index).refuses = lambda: rng.random() < 0.05
    requests: list[Request] = []
    chains: list[list[int]] = [[0]]
    for _ in range(300):
        prefix = rng.choice(chains[-40:])
        prompt = [*prefix[: rng.randint(0, 23)], rng.randrange(3)]
        requests.append(make_request(engine, prompt, rng.randint(1, 8)))
        engine.submit(requests[-1])
        for _ in range(rng.randint(0, 4)):
            engine.step()
        damaged = slab(engine, rng.randrange(2))
        if rng.random() < 0.3:
            damaged.damaged.add(rng.randrange(damaged.num_slots))
        chains.append(prompt + expected_reply(prompt, 8, 3))
    run_all(engine)
    for request in requests:
        prompt = request.tokens[: request.num_prompt]
        assert request.output == expected_reply(prompt, request.params.max_tokens, 3)
    assert sum(sum(r.tier_tokens[1:]) for r in requests) > 300
