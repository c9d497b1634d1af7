"""The default model's engine under each policy against the analyzer on the log it wrote."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from test_default_model import TEXT, folder

from loadkit.analysis.reuse import reuse_of
from loadkit.analysis.simulate.policies import simulate
from loadkit.core.blocks import root_hash
from loadkit.traces import read_trace
from reference_server.engine import Engine, EngineSettings
from reference_server.model_runner import TransformersRunner
from reference_server.request import Request, SamplingParams
from reference_server.weights import load_model

pytestmark = pytest.mark.e2e
__all__ = ["folder"]  # the fixture
BLOCK, CAPACITY, NUM_REQUESTS = 8, 9, 14


@pytest.fixture(scope="module")
def runner(folder: Path) -> TransformersRunner:
    torch.set_num_threads(1)
    model = load_model(str(folder), "cpu")
    return TransformersRunner(model, num_pages=CAPACITY + 2, block_size=BLOCK)


@pytest.fixture(scope="module")
def ids(folder: Path) -> list[int]:
    from transformers import AutoTokenizer

    found: list[int] = AutoTokenizer.from_pretrained(str(folder)).encode(TEXT * 3)
    return found


@pytest.mark.parametrize("policy", ["diversity", "lru", "slru"])
def test_the_served_hits_are_those_predicted_from_the_servers_own_log(
    runner: TransformersRunner, ids: list[int], tmp_path: Path, policy: str
) -> None:
    """A system prompt of 20 tokens before most prompts, next turns on real replies, replays. All
    policies are compared on thousands of requests in tests/fidelity, without a model."""
    settings = EngineSettings(BLOCK, CAPACITY, 64, max_num_seqs=1, policy=policy)
    engine, rng = Engine(runner, settings), random.Random(3)
    engine.log.start()
    served: list[Request] = []
    for number in range(NUM_REQUESTS):
        start = rng.choice([25, 40, 55])
        prompt = ids[: rng.choice([0, 20, 20])] + ids[start : start + rng.choice([20, 26])]
        if served and number % 3 == 1:
            prompt = list(served[-1].tokens[: served[-1].num_prompt])
        elif served and number % 3 == 2:
            prompt = (served[-1].tokens + ids[number : number + 5])[:60]
        request = Request(
            prompt, BLOCK, root_hash("smol"), SamplingParams(4), session=str(number % 4)
        )
        engine.submit(request)
        while engine.step():
            pass
        served.append(request)
    path = tmp_path / "served.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in engine.log.take()))
    predicted = simulate(reuse_of(read_trace([path])), policy, CAPACITY).requests
    assert [r.split for r in served] == [predicted.split(row) for row in range(NUM_REQUESTS)]
    assert predicted.total().hit > 0
    assert predicted.total().miss_capacity > 0
