"""A whole prompt seen before costs one token: the last one. What is reported stays whole blocks."""

from __future__ import annotations

from typing import Any

import pytest
from engine_builders import CheckingRunner, expected_reply, make_engine, make_request, run, run_all

from reference_server.engine import Engine
from reference_server.request import Request


def computed(engine: Engine, prompt: list[int], num_new: int = 1) -> tuple[Request, int]:
    """The request at its end, and how many tokens were computed up to its first one."""
    counts: list[int] = []
    runner: Any = engine.runner
    execute = runner.execute
    runner.execute = lambda chunks: (
        counts.append(sum(c.num_tokens for c in chunks)),
        execute(chunks),
    )[1]
    request = make_request(engine, prompt, num_new)
    engine.submit(request)
    while not request.num_output:
        engine.step()
    run_all(engine)
    del runner.execute
    return request, sum(counts[: len(counts) - (num_new - 1)])


@pytest.mark.parametrize("num_new", [1, 3, 9])
@pytest.mark.parametrize("length", [1, 3, 4, 5, 7, 8, 11, 12, 13])
def test_the_same_prompt_again_computes_only_its_last_token(length: int, num_new: int) -> None:
    """Blocks of 4; the tail lies in a dead page, or in the block that the reply filled."""
    engine = make_engine(50)
    prompt = ([1, 2, 0, 1, 2, 2, 2, 0, 1, 1, 0, 0, 2])[:length]
    first, num_first = computed(engine, prompt, num_new)
    again, num_again = computed(engine, prompt, num_new)
    assert (num_first, num_again) == (length, 1)
    assert again.output == first.output == expected_reply(prompt, num_new, 3)
    assert again.split is not None
    assert again.split.hit == (length - 1) // 4 * 4
    assert again.num_kept_tail == length - 1 - again.split.hit


def test_what_is_alike_of_the_next_block_is_copied() -> None:
    """Blocks of 4: 6 tokens alike, then another: 4 hit, 2 are copied, 3 of 9 are computed."""
    engine = make_engine(50)
    run(engine, [1, 2, 0, 1, 2, 2, 2, 0])
    other, num = computed(engine, [1, 2, 0, 1, 2, 2, 0, 0, 1])
    assert other.split is not None
    assert (other.split.hit, other.num_kept_tail, num) == (4, 2, 3)


def test_a_kept_tail_changes_nothing_in_what_is_evicted() -> None:
    """The dead page is not touched by being copied: decision 002's order stands."""
    engine = make_engine(4)
    run(engine, [1, 2, 0, 1, 2])  # a block and a dead page
    copied, _ = computed(engine, [1, 2, 0, 1, 2])  # another dead page
    assert copied.num_kept_tail == 0  # 5 tokens: the tail is the last token itself
    assert (len(engine.tree.nodes), engine.tree.pool.num_dead) == (1, 2)
    again, _ = computed(engine, [1, 2, 0, 1, 2, 2])
    assert again.num_kept_tail == 1
    assert (len(engine.tree.nodes), engine.tree.pool.num_dead) == (1, 3)
    run(engine, [0, 0])  # a fourth dead page: the oldest goes
    assert (len(engine.tree.nodes), engine.tree.pool.num_dead) == (1, 3)


def test_a_tail_that_room_is_made_of_is_copied_before() -> None:
    """Pool of 2 blocks of 4: the new block needs the page that the tail lies in."""
    engine = make_engine(2)
    run(engine, [1, 2, 0, 1, 2, 2])
    again, num = computed(engine, [1, 2, 0, 1, 2, 2, 0, 0])
    assert again.num_kept_tail == 2
    assert num == 2


def test_without_a_way_to_copy_the_tail_is_computed() -> None:
    engine = make_engine(50)
    engine.tree.pages = None
    run(engine, [1, 2, 0, 1, 2, 2, 2])
    _, num = computed(engine, [1, 2, 0, 1, 2, 2, 2])
    assert num == 3


def test_a_copy_that_fails_is_computed() -> None:
    class Broken(CheckingRunner):
        def copy(self, source: int, target: int, num_tokens: int) -> None:
            raise RuntimeError("the device says no")

    engine = make_engine(50)
    engine.tree.pages = Broken(4)
    run(engine, [1, 2, 0, 1, 2, 2, 2])
    again, num = computed(engine, [1, 2, 0, 1, 2, 2, 2])
    assert num == 3
    assert again.finish_reason == "length"
