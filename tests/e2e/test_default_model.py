"""The default model's real weights: served greedy tokens are those of plain `generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from loadkit.core.blocks import root_hash
from reference_server.engine import Engine, EngineSettings
from reference_server.model_runner import TransformersRunner
from reference_server.request import Request, SamplingParams
from reference_server.weights import cache_folder, load_model

pytestmark = pytest.mark.e2e
TEXT = (
    "The prefix cache keeps the keys and values of earlier prompts. A request that begins like one "
    "of them need not compute that part again, which saves most of the time to the first token. "
)
NUM_NEW = 16


@pytest.fixture(scope="module")
def folder() -> Path:
    """The converted model of this user; making it takes a minute, so that is not done here."""
    found = sorted(cache_folder().glob("models/smollm2-135m-*/config.json"))
    if not found:
        pytest.skip("the default model was not converted yet: run `loadkit serve` once")
    return found[0].parent


def test_greedy_equals_generate_with_and_without_hits(folder: Path) -> None:
    """Prompts of 200 tokens (12.5 blocks) and 128 (8 blocks), alone and in one batch."""
    torch.set_num_threads(1)
    from transformers import AutoTokenizer

    ids: list[int] = AutoTokenizer.from_pretrained(str(folder)).encode(TEXT * 6)
    prompts = [ids[:200], ids[:128], ids[:30] + ids[3:40]]
    plain = load_model(str(folder), "cpu")
    wanted = [generate(plain, prompt) for prompt in prompts]
    settings = EngineSettings(16, 64, max_batch_tokens=100, max_num_seqs=4)
    runner = TransformersRunner(load_model(str(folder), "cpu"), num_pages=69, block_size=16)
    engine = Engine(runner, settings)
    for _ in range(2):
        requests = [request(prompt) for prompt in prompts]
        for made in requests:
            engine.submit(made)
        while engine.step():
            pass
        assert [made.output for made in requests] == wanted
    assert [made.split.hit for made in requests if made.split] == [192, 112, 64]


def request(prompt: list[int]) -> Request:
    params = SamplingParams(NUM_NEW, ignore_eos=True)
    return Request(list(prompt), 16, root_hash("smol"), params)


def generate(model: Any, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NUM_NEW,
        eos_token_id=-1,
        pad_token_id=0,
        do_sample=False,
    )
    return out[0, len(prompt) :].tolist()
