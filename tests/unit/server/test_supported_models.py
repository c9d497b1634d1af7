"""A model is served only if its paged attention says what its own says; others are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from loadkit.core.errors import InputError
from reference_server.engine import Engine, EngineSettings
from reference_server.model_runner import TransformersRunner
from reference_server.request import Request, SamplingParams

SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "vocab_size": 100}
GROUPED = {"num_key_value_heads": 2}


def make_model(kind: str, **config: Any) -> Any:
    torch.set_num_threads(1)
    torch.manual_seed(2)
    sizes = GPT2 if kind == "gpt2" else SIZES
    made = CONFIG_MAPPING[kind](**{**sizes, **config})
    return AutoModelForCausalLM.from_config(made, dtype=torch.float32).eval()


def greedy(model: Any, prompt: list[int], num: int) -> list[int]:
    tokens = list(prompt)
    with torch.inference_mode():
        for _ in range(num):
            logits = model(torch.tensor([tokens]), use_cache=False).logits
            tokens.append(int(logits[0, -1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("llama", {}),
        ("mistral", {"sliding_window": None, **GROUPED}),
        ("mistral", {"sliding_window": 4096, **GROUPED}),
        ("qwen3", {"head_dim": 16, **GROUPED}),
        ("gemma", {"head_dim": 16, **GROUPED}),
        ("gpt2", {}),
        ("gpt_neox", {}),
        ("gpt_bigcode", {**GPT2, "multi_query": True}),
    ],
)
def test_models_of_several_families_say_what_they_say_without_a_cache(
    kind: str, config: dict[str, Any]
) -> None:
    """A prompt of 30 that hits 24 tokens in blocks of 4, and one that shares 13 with it."""
    plain = make_model(kind, **config)
    runner = TransformersRunner(make_model(kind, **config), num_pages=40, block_size=4)
    engine = Engine(runner, EngineSettings(4, 35, 16, max_num_seqs=4))
    prompt = [(37 * i) % 100 for i in range(30)]
    for tokens in (prompt, prompt[:13] + prompt[:9], prompt):
        request = Request(list(tokens), 4, b"root", SamplingParams(max_tokens=6))
        engine.submit(request)
        while engine.step():
            pass
        assert request.output == greedy(plain, tokens, 6)


WINDOW = {"sliding_window": 64, **GROUPED}
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0] * 4,
    "long_factor": [2.0] * 4,
    "rope_theta": 1e4,
    "original_max_position_embeddings": 64,
}
CAPPED = {"head_dim": 16, "layer_types": ["full_attention"] * 2, **GROUPED}
SINKS = {
    "head_dim": 16,
    "num_local_experts": 2,
    "num_experts_per_tok": 2,
    "layer_types": ["full_attention"] * 2,
    **GROUPED,
}


@pytest.mark.parametrize(
    ("kind", "config", "reason"),
    [
        ("mistral", WINDOW, "sliding_attention"),
        ("phi3", WINDOW, "sliding_attention"),
        ("qwen3_next", {"head_dim": 16, **GROUPED}, "linear_attention"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ("phi3", {"rope_parameters": LONGROPE}, "'longrope'"),
        ("gemma2", CAPPED, "soft-capped logits"),
        ("falcon", {}, "transformers' interface"),
        ("gpt_oss", SINKS, "says something else"),
        ("gpt2", {"num_key_value_heads": 1}, "cannot be paged"),
    ],
)
def test_what_pages_cannot_say_is_refused_with_the_reason(
    kind: str, config: dict[str, Any], reason: str
) -> None:
    """The last tells of heads that it does not have; most were once served, and said nonsense."""
    model = make_model(kind, **config)
    with pytest.raises(InputError, match=reason):
        TransformersRunner(model, num_pages=40, block_size=4)
