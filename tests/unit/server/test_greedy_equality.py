"""The served tokens are those of plain `generate`, whatever hit and whoever shared the batch."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from tiny_model import CONTEXT, make_model

from loadkit.core.blocks import root_hash
from reference_server.engine import Engine, EngineSettings
from reference_server.model_runner import TransformersRunner
from reference_server.request import Request, SamplingParams

VOCABULARY, NUM_NEW, BLOCK, EOS = 200, 12, 16, 1
ROOT = root_hash("tiny")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def plain() -> Any:
    return make_model(VOCABULARY)


def make_engine(num_blocks: int = 200, max_batch_tokens: int = 40) -> Engine:
    settings = EngineSettings(BLOCK, num_blocks, max_batch_tokens, max_num_seqs=4)
    runner = TransformersRunner(make_model(VOCABULARY), num_pages=num_blocks + 5, block_size=BLOCK)
    return Engine(runner, settings)


def submit(engine: Engine, prompt: list[int], **params: Any) -> Request:
    wanted = {"max_tokens": NUM_NEW, "eos_ids": frozenset({EOS}), **params}
    request = Request(list(prompt), BLOCK, ROOT, SamplingParams(**wanted))
    engine.submit(request)
    return request


def run_all(engine: Engine) -> None:
    while engine.step():
        pass


def generate(model: Any, prompt: list[int], num: int = NUM_NEW) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=num,
        min_new_tokens=num,
        do_sample=False,
    )
    return out[0, len(prompt) :].tolist()


def random_prompt(seed: int, length: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(2, VOCABULARY) for _ in range(length)]


def test_the_tiny_model_says_different_things_to_different_prompts(plain: Any) -> None:
    """Else the tests below would pass with broken attention."""
    replies = {tuple(generate(plain, [*random_prompt(1, 47), last])) for last in range(2, 12)}
    assert len(replies) == 10
    far_away = [[first, *random_prompt(1, 60)] for first in range(2, 7)]
    assert len({tuple(generate(plain, p)) for p in far_away}) > 2


@pytest.mark.parametrize("length", [1, 15, 16, 17, 48, 100, 131])
def test_miss_and_hit_equal_generate(plain: Any, length: int) -> None:
    """Chunks of 40 tokens, blocks of 16; 16 and 48 are whole blocks, so their last one is
    recomputed beside the resident page."""
    prompt = random_prompt(length, length)
    wanted = generate(plain, prompt)
    engine = make_engine()
    for cached in (0, (length - 1) // BLOCK * BLOCK):
        request = submit(engine, prompt, min_tokens=NUM_NEW)
        run_all(engine)
        assert request.split is not None
        assert (request.output, request.split.hit) == (wanted, cached)


def test_a_conversation_that_grows_equals_generate_at_every_turn(plain: Any) -> None:
    engine = make_engine()
    history = random_prompt(5, 30)
    for turn in range(4):
        request = submit(engine, history, min_tokens=NUM_NEW)
        run_all(engine)
        assert request.output == generate(plain, history)
        history = [*history, *request.output, *random_prompt(turn, 9)]
    assert request.split is not None
    assert request.split.hit == 80  # 30 + 3 * 21 = 93 tokens; 83 of them were computed: 5 blocks


def test_requests_in_one_batch_equal_generate_alone(plain: Any) -> None:
    """Seven requests, four at a time, sharing prefixes, in chunks and decodes side by side."""
    stem = random_prompt(9, 70)
    prompts = [stem[:cut] + random_prompt(cut, 5) for cut in (70, 64, 3, 70, 33, 48, 60)]
    engine = make_engine()
    requests = [submit(engine, p, min_tokens=NUM_NEW) for p in prompts]
    run_all(engine)
    assert [r.output for r in requests] == [generate(plain, p) for p in prompts]


def test_preempted_requests_equal_generate(plain: Any) -> None:
    """Pool of 7 blocks; three requests of 30 + 25 tokens need 4 each."""
    prompts = [random_prompt(seed, 30) for seed in (1, 2, 3)]
    engine = make_engine(num_blocks=7)
    requests = [submit(engine, p, max_tokens=25, min_tokens=25) for p in prompts]
    run_all(engine)
    assert sum(r.num_preemptions for r in requests) > 0
    assert [r.output for r in requests] == [generate(plain, p, 25) for p in prompts]


def test_eos_ends_a_reply_unless_ignored_or_banned() -> None:
    engine = make_engine()
    prompt = random_prompt(4, 20)
    free = submit(engine, prompt, ignore_eos=True)
    run_all(engine)
    eos = free.output[3]
    first = free.output.index(eos)
    ended = submit(engine, prompt, eos_ids=frozenset({eos}))
    banned = submit(engine, prompt, eos_ids=frozenset({eos}), min_tokens=6)
    run_all(engine)
    assert (ended.output, ended.finish_reason) == (free.output[: first + 1], "stop")
    assert eos not in banned.output[:6]
    assert len(banned.output) >= 6


def test_a_seed_makes_sampling_repeatable_and_temperature_makes_it_vary() -> None:
    engine = make_engine()
    prompt = random_prompt(4, 20)
    hot = {"temperature": 1.5, "top_p": 0.95}
    requests = [submit(engine, prompt, seed=seed, **hot) for seed in (1, 1, 2)]
    run_all(engine)
    assert requests[0].output == requests[1].output
    assert requests[0].output != requests[2].output


def test_a_tiny_top_p_is_greedy(plain: Any) -> None:
    engine = make_engine()
    prompt = random_prompt(6, 20)
    request = submit(engine, prompt, temperature=1.0, top_p=1e-6, seed=3, min_tokens=NUM_NEW)
    run_all(engine)
    assert request.output == generate(plain, prompt)


def test_the_probe_leaves_the_cache_alone() -> None:
    engine = make_engine()
    prompt = random_prompt(8, 40)
    first = submit(engine, prompt)
    run_all(engine)
    engine.runner.probe()
    again = submit(engine, prompt)
    run_all(engine)
    assert again.output == first.output
    assert engine.runner.max_model_len == CONTEXT
