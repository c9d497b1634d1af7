"""How fast the reference server's engine is beside plain `generate`, in one run, one thread.

    python benchmarks/server_speed.py [--model FOLDER]

Prints seconds and ratios: time to the first token of a prompt that misses and one that hits fully,
decode speed at batch 1 and 4, and the share of a step that is spent outside the model. Each figure
is the best of `--repeats`, as the machine may be shared.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from loadkit.core.blocks import root_hash
from reference_server.engine import Engine, EngineSettings
from reference_server.model_runner import TransformersRunner
from reference_server.request import Chunk, Request, SamplingParams
from reference_server.weights import load_model, prepare_default_model

BLOCK, NUM_BLOCKS, MAX_SEQS, NUM_NEW = 16, 512, 4, 24


class TimedRunner:
    """Adds up the time inside the model, so that the rest is known."""

    def __init__(self, runner: TransformersRunner):
        self.runner, self.model_s = runner, 0.0
        self.vocab_size, self.max_model_len = runner.vocab_size, runner.max_model_len
        self.probe = runner.probe

    def execute(self, chunks: Sequence[Chunk]) -> list[int | None]:
        start = time.perf_counter()
        tokens = self.runner.execute(chunks)
        self.model_s += time.perf_counter() - start
        return tokens


def prompt(rng: random.Random, length: int, vocab_size: int) -> list[int]:
    return [rng.randrange(10, vocab_size) for _ in range(length)]


def serve(engine: Engine, prompts: Sequence[list[int]], max_tokens: int) -> tuple[float, float]:
    """(seconds to the first token of all, seconds to the end)."""
    params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
    start = time.perf_counter()
    requests = [Request(list(p), BLOCK, root_hash(), params) for p in prompts]
    for request in requests:
        engine.submit(request)
    first = None
    while engine.step():
        if first is None and all(r.num_output for r in requests):
            first = time.perf_counter() - start
    assert first is not None
    return first, time.perf_counter() - start


def generate(model: Any, prompts: Sequence[list[int]], num: int) -> float:
    ids = torch.tensor(prompts)
    start = time.perf_counter()
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=num,
        min_new_tokens=num,
        do_sample=False,
    )
    return time.perf_counter() - start


def best(repeats: int, measure: Callable[[], float]) -> float:
    return min(measure() for _ in range(repeats))


def time_to_first_token(engine: Engine, plain: Any, rng: random.Random, repeats: int) -> None:
    print("time to first token, s   miss     full hit   miss/hit   generate   generate/miss")
    for length in (512, 1024):
        misses, hits, plains = [], [], []
        for _ in range(repeats):
            text = prompt(rng, length, engine.runner.vocab_size)
            misses.append(serve(engine, [text], 1)[0])
            hits.append(serve(engine, [text], 1)[0])
            plains.append(generate(plain, [text], 1))
        miss, hit, other = min(misses), min(hits), min(plains)
        print(
            f"{length:6} tokens        {miss:8.3f} {hit:9.3f} {miss / hit:10.1f}"
            f" {other:10.3f} {other / miss:12.2f}"
        )


def decode(engine: Engine, plain: Any, rng: random.Random, repeats: int) -> None:
    print("decode, tokens/s       engine   generate   engine/generate   outside the model")
    for batch in (1, 4):
        texts = [prompt(rng, 128, engine.runner.vocab_size) for _ in range(batch)]
        serve(engine, texts, 1)
        runner = engine.runner
        assert isinstance(runner, TimedRunner)
        rates, others, outside = [], [], []
        for _ in range(repeats):
            runner.model_s = 0.0
            first, total = serve(engine, texts, NUM_NEW)
            outside.append(1 - runner.model_s / total)
            rates.append(batch * (NUM_NEW - 1) / (total - first))
            gap = generate(plain, texts, NUM_NEW) - generate(plain, texts, 1)
            others.append(batch * (NUM_NEW - 1) / gap)
        print(
            f"batch {batch}          {max(rates):10.1f} {max(others):10.1f}"
            f" {max(rates) / max(others):17.2f} {min(outside):19.1%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="model folder; default: the bundled SmolLM2")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.model or str(prepare_default_model())
    settings = EngineSettings(BLOCK, NUM_BLOCKS, max_batch_tokens=512, max_num_seqs=MAX_SEQS)
    runner = TransformersRunner(
        load_model(folder), num_pages=NUM_BLOCKS + MAX_SEQS + 1, block_size=BLOCK
    )
    engine = Engine(TimedRunner(runner), settings)
    plain, rng = load_model(folder), random.Random(1)
    time_to_first_token(engine, plain, rng, options.repeats)
    decode(engine, plain, rng, options.repeats)


if __name__ == "__main__":
    main()
