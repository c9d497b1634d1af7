"""Guesses from what the cache holds: fewer steps, the same tokens."""

from __future__ import annotations

import random

import pytest
from engine_builders import ROOT, expected_reply, make_engine, make_request, run, run_all

from reference_server.block_tree import Block, BlockTree
from reference_server.drafting import Drafter
from reference_server.request import Request, SamplingParams


def steps(num_prompt: int, draft_tokens: int) -> tuple[int, int]:
    """Steps of a reply of 33 tokens the first time and the second."""
    engine = make_engine(100, draft_tokens=draft_tokens, vocabulary=50)
    prompt = list(range(num_prompt))
    counts = []
    for _ in range(2):
        request = make_request(engine, prompt, 33)
        engine.submit(request)
        num = 0
        while engine.step():
            num += 1
        counts.append(num)
        assert request.output == expected_reply(prompt, 33, 50)
    return counts[0], counts[1]


@pytest.mark.parametrize("num_prompt", [3, 4, 8])
def test_a_repeated_reply_takes_a_step_a_block(num_prompt: int) -> None:
    """Blocks of 4: a reply of 33 tokens in about 33 / 4 steps."""
    first, again = steps(num_prompt, draft_tokens=3)
    assert first == 33
    assert again <= 10


def test_without_drafting_every_token_is_a_step() -> None:
    assert steps(5, draft_tokens=0) == (33, 33)


def test_replies_are_the_same_with_and_without_whatever_was_served_before() -> None:
    """Prompts over 3 values, so that many branches begin alike and go on differently."""
    rng = random.Random(4)
    engine = make_engine(200, draft_tokens=3)
    prompts = [[rng.randrange(3) for _ in range(rng.randint(1, 9))] for _ in range(150)]
    requests = [make_request(engine, p, rng.randint(1, 15)) for p in prompts]
    for request in requests:
        engine.submit(request)
        for _ in range(rng.randint(0, 6)):
            engine.step()
    run_all(engine)
    for prompt, request in zip(prompts, requests, strict=True):
        assert request.output == expected_reply(prompt, request.num_output, 3)
        assert request.finish_reason == "length"
        assert request.num_output == request.params.max_tokens
    assert sum(r.num_accepted for r in requests) > 50
    assert sum(r.num_drafted - r.num_accepted for r in requests) > 20  # wrong guesses, too


def proposal(tree: BlockTree, known: list[int]) -> tuple[int, ...]:
    request = Request([*known], 8, ROOT, SamplingParams(max_tokens=50))
    request.num_prompt = len(known) - 1
    request.num_computed = len(known) - 1
    return Drafter(tree, 8, 7).propose(request)


def tree_with(*branches: tuple[list[int], int]) -> BlockTree:
    """Dead pages behind the root, oldest first, each with its number of uses."""
    tree = BlockTree(20, 1)
    for tokens, uses in branches:
        tree.retire(Block(None, None, ROOT, tuple(tokens)), tree.take_working(), reserved=False)
        next(tree.continuations.after(ROOT)).num_uses = uses
    return tree


def test_branches_vote_by_recency() -> None:
    assert proposal(tree_with(([1, 2, 3], 1), ([1, 2, 4], 1)), [1, 2]) == (4,)


def test_branches_vote_by_use() -> None:
    assert proposal(tree_with(([1, 2, 3], 9), ([1, 2, 4], 1)), [1, 2]) == (3,)


def test_several_older_branches_outvote_the_latest() -> None:
    branches = ([1, 3, 5], 1), ([1, 3, 6], 1), ([1, 3, 7], 1), ([1, 4], 1)
    assert proposal(tree_with(*branches), [1])[0] == 3


def test_other_beginnings_have_no_vote_and_no_guess_is_made_of_nothing() -> None:
    assert proposal(tree_with(([2, 2, 3], 1)), [1, 2]) == ()
    assert proposal(tree_with(), [1, 2]) == ()


def test_sampled_replies_are_not_guessed() -> None:
    engine = make_engine(100, draft_tokens=3)
    run(engine, [1, 2], 20)
    request = Request([1, 2], 4, ROOT, SamplingParams(max_tokens=20, temperature=1.0))
    engine.submit(request)
    run_all(engine)
    assert request.num_drafted == 0
