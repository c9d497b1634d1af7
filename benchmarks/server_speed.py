"""How fast the reference server's engine is beside plain `generate`, in one run, one thread.

    python benchmarks/server_speed.py [--model FOLDER] [--repeats N]

Times are CPU seconds of the process, which has one thread, since the machine may be shared; each is
the best of the repeats, and what is compared is measured in turns. Printed: time to the first token
of a prompt that misses and of one that hits fully, the latter also in decode steps at that length;
decode speed at batch 1, 4 and 16; the share of a step, and the time a request, spent outside the
model; decode speed with guesses from continuations that were served before; time to the first token
of a prompt whose blocks lie in host memory or on disk.
"""

from __future__ import annotations

import argparse
import gc
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from loadkit.core.blocks import root_hash
from reference_server.block_tree import BlockTree
from reference_server.engine import Engine, EngineSettings
from reference_server.model_runner import TransformersRunner
from reference_server.policies import POLICIES, make_policy
from reference_server.request import Chunk, Request, Sample, SamplingParams
from reference_server.scheduler import Scheduler
from reference_server.tiers.build import make_tiers
from reference_server.weights import load_model, prepare_default_model

SETTINGS = EngineSettings(16, 1024, max_batch_tokens=512, max_num_seqs=16)
LENGTHS, BATCHES, NUM_NEW = (512, 1024, 2048), (1, 4, 16), 24
clock = time.process_time


class TimedRunner:
    """Adds up the time inside the model, so that the rest is known."""

    def __init__(self, runner: TransformersRunner):
        self.runner, self.model_s = runner, 0.0
        self.vocab_size, self.max_model_len = runner.vocab_size, runner.max_model_len
        self.pages, self.probe = runner.pages, runner.probe

    def execute(self, chunks: Sequence[Chunk]) -> list[list[Sample]]:
        start = clock()
        samples = self.runner.execute(chunks)
        self.model_s += clock() - start
        return samples


def prompt(rng: random.Random, length: int, vocab_size: int) -> list[int]:
    return [rng.randrange(10, vocab_size) for _ in range(length)]


def serve(engine: Engine, prompts: Sequence[list[int]], max_tokens: int) -> tuple[float, float]:
    """(seconds to the first token of all, seconds to the end)."""
    params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
    start = clock()
    requests = [Request(list(p), SETTINGS.block_size, root_hash(), params) for p in prompts]
    for request in requests:
        engine.submit(request)
    first = None
    while engine.step():
        if first is None and all(r.num_output for r in requests):
            first = clock() - start
    assert first is not None
    return first, clock() - start


def generate(model: Any, prompts: Sequence[list[int]], num: int) -> float:
    ids = torch.tensor(prompts)
    start = clock()
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=num,
        min_new_tokens=num,
        do_sample=False,
    )
    return clock() - start


def time_to_first_token(engine: Engine, plain: Any, rng: random.Random, repeats: int) -> None:
    """Lengths are not whole blocks, so that a full hit has a tail."""
    print("first token, CPU s     miss  generate  generate/miss  full hit  miss/hit  in steps")
    for length in LENGTHS:
        misses, hits, plains, steps = [], [], [], []
        for _ in range(repeats):
            text = prompt(rng, length + 7, engine.runner.vocab_size)
            misses.append(serve(engine, [text], 1)[0])
            plains.append(generate(plain, [text], 1))
            for _ in range(3):
                first, total = serve(engine, [text], 9)
                hits.append(first)
                steps.append((total - first) / 8)
        miss, hit, other = min(misses), min(hits), min(plains)
        print(
            f"{length + 7:6} tokens      {miss:8.3f} {other:9.3f} {other / miss:14.2f}"
            f" {hit:9.3f} {miss / hit:9.1f} {hit / min(steps):9.2f}"
        )


def decode(engine: Engine, plain: Any, rng: random.Random, repeats: int) -> None:
    print("decode, tokens/CPU s  engine  generate  engine/generate  outside model  ms a request")
    for batch in BATCHES:
        texts = [prompt(rng, 128, engine.runner.vocab_size) for _ in range(batch)]
        serve(engine, texts, 1)
        runner = engine.runner
        assert isinstance(runner, TimedRunner)
        rates, others, outside, overhead = [], [], [], []
        for _ in range(repeats):
            runner.model_s = 0.0
            first, total = serve(engine, texts, NUM_NEW)
            outside.append(1 - runner.model_s / total)
            overhead.append((total - runner.model_s) / batch * 1000)
            rates.append(batch * (NUM_NEW - 1) / (total - first))
            gap = generate(plain, texts, NUM_NEW) - generate(plain, texts, 1)
            others.append(batch * (NUM_NEW - 1) / gap)
        print(
            f"batch {batch:2}           {max(rates):8.1f} {max(others):9.1f}"
            f" {max(rates) / max(others):16.2f} {min(outside):14.1%} {min(overhead):13.2f}"
        )


def overhead(engine: Engine, rng: random.Random) -> None:
    """What submitting, admitting and ending costs a request that hits, without any decode step."""
    texts = [prompt(rng, 512, engine.runner.vocab_size) for _ in range(8)]
    runner = engine.runner
    assert isinstance(runner, TimedRunner)
    spent = []
    for _ in range(4):
        runner.model_s = 0.0
        total = serve(engine, texts, 1)[1]
        spent.append((total - runner.model_s) / len(texts) * 1000)
    print(f"outside the model, a request of 512 tokens that hits: {min(spent):.2f} ms")


def cache(rng: random.Random, num: int = 300) -> None:
    """Scheduler and cache alone, without a model: prompts of about 660 tokens, half of them hit,
    at a capacity that evicts as many blocks as come."""
    stems = [prompt(rng, 1024, 50_000) for _ in range(40)]
    prompts = [
        rng.choice(stems)[: rng.choice([256, 512, 1024])] + prompt(rng, 64, 50_000)
        for _ in range(num)
    ]
    for name in POLICIES:
        tree = BlockTree(1500, 1, make_policy(name, 1500, 16))
        scheduler = Scheduler(tree, 16, max_batch_tokens=4096, max_num_seqs=1)
        start = clock()
        for text in prompts:
            request = Request(text[:], 16, root_hash(), SamplingParams(max_tokens=1))
            scheduler.add(request)
            while request.finish_reason is None:
                chunks = scheduler.plan()
                scheduler.apply(chunks, [[Sample(1)] for _ in chunks])
        print(f"cache and scheduler, {name:10} {(clock() - start) / num * 1000:.2f} ms a request")


def drafting(runner: Any, rng: random.Random, repeats: int) -> None:
    """Replies of 96 tokens, served before; the same tokens must come again."""
    print("repeated reply, tokens/CPU s   plain   drafting   drafting/plain")
    rates: dict[int, list[float]] = {0: [], 15: []}
    text = prompt(rng, 203, runner.vocab_size)
    outputs = []
    for draft in rates:
        engine = Engine(runner, replace(SETTINGS, draft_tokens=draft))
        serve(engine, [text], 96)
        for _ in range(repeats):
            params = SamplingParams(max_tokens=96, ignore_eos=True)
            request = Request(list(text), SETTINGS.block_size, root_hash(), params)
            engine.submit(request)
            start = clock()
            while engine.step():
                pass
            rates[draft].append(96 / (clock() - start))
            outputs.append(request.output)
    assert all(output == outputs[0] for output in outputs)
    plain, drafted = max(rates[0]), max(rates[15])
    print(f"{'':24} {plain:10.1f} {drafted:10.1f} {drafted / plain:16.2f}")


def tiers(runner: Any, rng: random.Random, repeats: int) -> None:
    """A pool that holds one prompt of 1,031 tokens: the other one lies in the tier below."""
    print("first token of 1,031 tokens, CPU s   recompute   host   disk")
    texts = [prompt(rng, 1031, runner.vocab_size) for _ in range(2)]
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("recompute", "host", "disk"):
            settings = replace(
                SETTINGS,
                num_blocks=70,
                host_blocks=100 if name == "host" else 0,
                disk_blocks=100 if name == "disk" else 0,
                disk_file=Path(folder) / "slab" if name == "disk" else None,
            )
            sizes = settings.host_blocks, settings.disk_blocks
            lower = make_tiers(runner.pages, *sizes, settings.disk_file, b"benchmark")
            engine = Engine(runner, settings, lower=lower)
            serve(engine, [texts[0]], 1)
            serve(engine, [texts[1]], 1)
            times = [serve(engine, [texts[n % 2]], 1)[0] for n in range(2 * repeats)]
            found[name] = min(times)
    cells = f"{found['recompute']:9.3f} {found['host']:6.3f} {found['disk']:6.3f}"
    print(f"{'':36} {cells}")


PARTS = ("first-token", "decode", "overhead", "cache", "drafting", "tiers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="model folder; default: the bundled SmolLM2")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.model or str(prepare_default_model())
    runner = TransformersRunner(
        load_model(folder),
        num_pages=SETTINGS.num_blocks + SETTINGS.max_num_seqs + 1,
        block_size=SETTINGS.block_size,
    )
    timed = TimedRunner(runner)
    engine = Engine(timed, SETTINGS)
    plain, rng = load_model(folder), random.Random(1)
    gc.freeze()  # as the server does
    parts: dict[str, Callable[[], None]] = {
        "first-token": lambda: time_to_first_token(engine, plain, rng, options.repeats),
        "decode": lambda: decode(engine, plain, rng, options.repeats),
        "overhead": lambda: overhead(engine, rng),
        "cache": lambda: cache(rng),
        "drafting": lambda: drafting(timed, rng, options.repeats),
        "tiers": lambda: tiers(timed, rng, options.repeats),
    }
    for name in options.only:
        parts[name]()


if __name__ == "__main__":
    main()
