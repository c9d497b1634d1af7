"""A real (tiny, random) model behind tiers, tails, drafts and choices: the tokens of `generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_greedy_equality import BLOCK, ROOT, random_prompt
from tiny_model import make_model

from reference_server.engine import Engine, EngineSettings
from reference_server.model_runner import TransformersRunner
from reference_server.request import Request, SamplingParams
from reference_server.tiers.build import make_tiers, model_fingerprint

VOCABULARY = 200


@pytest.fixture(scope="module")
def plain() -> Any:
    torch.set_num_threads(1)
    return make_model(VOCABULARY)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path / "slab"


def make_engine(seed: int = 0, **more: Any) -> Engine:
    settings = EngineSettings(BLOCK, max_batch_tokens=40, max_num_seqs=4, **more)
    model = make_model(VOCABULARY, seed)
    fingerprint = model_fingerprint(model)
    num_pages = settings.num_blocks + 5
    runner = TransformersRunner(model, num_pages=num_pages, block_size=BLOCK)
    sizes = settings.host_blocks, settings.disk_blocks
    return Engine(
        runner,
        settings,
        lower=make_tiers(runner.pages, *sizes, settings.disk_file, fingerprint),
    )


def serve(engine: Engine, prompt: list[int], num: int = 8, **params: Any) -> Request:
    request = Request(list(prompt), BLOCK, ROOT, SamplingParams(max_tokens=num, **params))
    engine.submit(request)
    while engine.step():
        pass
    return request


def generate(model: Any, prompt: list[int], num: int) -> list[int]:
    """Without any token that ends the reply."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=num,
        eos_token_id=-1,
        pad_token_id=0,
        do_sample=False,
    )
    return out[0, len(prompt) :].tolist()


def stop(engine: Engine) -> None:
    for tier in engine.tree.lower.tiers:
        close = getattr(tier.slab, "close", lambda: None)
        close()


def test_blocks_out_of_host_memory_and_off_disk_say_the_same(plain: Any, disk: Path) -> None:
    """Blocks of 16, 4 + a page a prompt: device 6, host 6, disk 20; the last two are twice asked."""
    engine = make_engine(num_blocks=6, host_blocks=6, disk_blocks=20, disk_file=disk)
    prompts = [random_prompt(seed, 70) for seed in range(4)]
    wanted = [generate(plain, p, 8) for p in prompts]
    for _ in range(2):
        requests = [serve(engine, p) for p in prompts]
        assert [r.output for r in requests] == wanted
    assert sum(r.tier_tokens[2] for r in requests) > 0
    again = serve(engine, prompts[2])
    assert again.tier_tokens[1] > 0
    assert again.output == wanted[2]
    stop(engine)


def test_the_disk_is_served_after_a_restart_to_the_same_weights_alone(
    plain: Any, disk: Path
) -> None:
    prompts = [random_prompt(seed, 70) for seed in range(3)]
    hits = []
    for seed in (0, 0, 1):
        engine = make_engine(seed, num_blocks=5, disk_blocks=20, disk_file=disk)
        first = serve(engine, prompts[0])
        hits.append(first.tier_tokens)
        assert (first.output == generate(plain, prompts[0], 8)) == (seed == 0)
        serve(engine, prompts[1])
        serve(engine, prompts[2])
        stop(engine)
    assert hits == [(0, 0, 0), (0, 0, 64), (0, 0, 0)]


@pytest.mark.parametrize("length", [2, 16, 17, 40, 48])
def test_kept_tails_and_drafts_say_the_same(plain: Any, length: int) -> None:
    engine = make_engine(num_blocks=60, draft_tokens=15)
    prompt = random_prompt(length, length)
    requests = [serve(engine, prompt, 40) for _ in range(3)]
    assert {tuple(r.output) for r in requests} == {tuple(generate(plain, prompt, 40))}
    assert requests[2].num_kept_tail == (length - 1) % BLOCK
    assert requests[2].num_accepted > 25


def test_choices_of_one_prompt_say_the_same(plain: Any) -> None:
    engine = make_engine(num_blocks=60)
    prompt = random_prompt(3, 43)
    leader = Request(list(prompt), BLOCK, ROOT, SamplingParams(max_tokens=8))
    choices = [leader, leader.another_choice(1), leader.another_choice(2)]
    for request in choices:
        engine.submit(request)
    while engine.step():
        pass
    assert [r.output for r in choices] == [generate(plain, prompt, 8)] * 3


def test_logprobs_are_those_of_the_model(plain: Any) -> None:
    prompt = random_prompt(4, 30)
    request = serve(make_engine(num_blocks=60), prompt, 3, num_logprobs=4)
    with torch.inference_mode():
        rows = plain(torch.tensor([request.tokens])).logits[0, 29:32].log_softmax(-1)
    for sample, row in zip(request.samples, rows, strict=True):
        assert sample.logprob == pytest.approx(float(row[sample.token]), abs=1e-3)
        assert [token for token, _ in sample.top] == row.topk(4).indices.tolist()
