"""A model's cache from its config: bytes a token, tokens a block, what a hit needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadkit.core.cache_layout import (
    Served,
    bytes_per_token,
    cache_layout,
    read_bytes_per_token,
    read_layout,
)
from loadkit.core.errors import InputError
from loadkit.core.units import bytes_as_tokens

LLAMA_8B = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "torch_dtype": "bfloat16",
}


def test_grouped_heads_count_once_a_group() -> None:
    # 2 x 32 layers x 8 heads x 128 numbers x 2 bytes: the 128 KiB a token that vLLM reports.
    assert bytes_per_token(LLAMA_8B) == 131_072


def test_an_fp8_cache_takes_half() -> None:
    assert bytes_per_token(LLAMA_8B, "fp8") == 65_536


def test_without_kv_heads_every_head_has_its_own() -> None:
    gpt2 = {"n_layer": 12, "n_head": 12, "n_embd": 768, "dtype": "float32"}
    assert bytes_per_token(gpt2) == 2 * 12 * 768 * 4


def test_a_stated_head_dim_and_a_nested_config_are_used() -> None:
    nested = {"text_config": LLAMA_8B | {"head_dim": 256}, "torch_dtype": "float16"}
    assert bytes_per_token(nested) == 262_144


def test_latent_attention_keeps_one_vector() -> None:
    deepseek = {
        "num_hidden_layers": 61,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
        "torch_dtype": "bfloat16",
    }
    assert bytes_per_token(deepseek) == 61 * 576 * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_types": ["full_attention", "sliding_attention"]}, "window"),
        ({"sliding_window": 4096}, "window"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"torch_dtype": None}, "not given"),
        ({"torch_dtype": "int3"}, "int3"),
    ],
)
def test_a_config_without_an_answer_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bytes_per_token(LLAMA_8B | change)


def test_a_window_that_is_switched_off_does_not_matter() -> None:
    off = LLAMA_8B | {"sliding_window": 131_072, "use_sliding_window": False}
    assert bytes_per_token(off) == 131_072


def test_sizes_become_tokens_and_the_rest_stays() -> None:
    assert bytes_as_tokens("30k, 40GiB,inf,1GB", 131_072) == "30k,327680tok,inf,7629tok"


def test_a_folder_or_a_file_names_the_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    assert read_bytes_per_token(tmp_path) == 131_072
    assert read_bytes_per_token(tmp_path / "config.json") == 131_072


@pytest.mark.parametrize("content", ["", "[]", "{}", "{", "nul"])
def test_a_file_that_is_no_config_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json: "):
        read_bytes_per_token(tmp_path)


def test_a_missing_config_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json: cannot be read"):
        read_bytes_per_token(tmp_path)


# Hybrid models: the numbers of their config.json that decide, and the block size that vLLM logged.
# (`Setting attention block size to N tokens to ensure that attention page size is >= mamba page size`)
QWEN35_4B = {  # vLLM issue 40696: 528 tokens on an A100 and an H20
    "architectures": ["Qwen3_5ForConditionalGeneration"],
    "text_config": {
        "dtype": "bfloat16",
        "mamba_ssm_dtype": "float32",
        "num_hidden_layers": 32,
        "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 8,
        "hidden_size": 2560,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "linear_value_head_dim": 128,
    },
}
QWEN35_27B = {  # issue 54607: 784 tokens; issue 45238, on a CPU: 896, a multiple of its 128
    "architectures": ["Qwen3_5ForConditionalGeneration"],
    "text_config": QWEN35_4B["text_config"] | {"linear_num_value_heads": 48},  # type: ignore[operator]
}
NEMOTRON_30B = {  # issue 53749, engine A: 2,096 tokens
    "architectures": ["NemotronHForCausalLM"],
    "dtype": "bfloat16",
    "hybrid_override_pattern": "MEMEM*EMEMEM*E",
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "mamba_num_heads": 64,
    "mamba_head_dim": 64,
    "n_groups": 8,
    "ssm_state_size": 128,
    "conv_kernel": 4,
}
NEMOTRON_120B = NEMOTRON_30B | {"mamba_num_heads": 128}  # issue 48401: 8,320 with its fp8 cache
LING_FLASH = {  # issue 53749, engine B: 1,920 tokens; delta attention beside latent attention
    "architectures": ["BailingMoeV3ForCausalLM"],
    "dtype": "bfloat16",
    "num_attention_heads": 32,
    "head_dim": 128,
    "short_conv_kernel_size": 4,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
}
QWEN3_NEXT = {  # 80B-A3B; its recurrent state has the model's own type
    "architectures": ["Qwen3NextForCausalLM"],
    "dtype": "bfloat16",
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_value_head_dim": 128,
}
GRANITE4_SMALL = {  # granite-4.0-h-small, defaults of transformers' GraniteMoeHybridConfig
    "architectures": ["GraniteMoeHybridForCausalLM"],
    "dtype": "bfloat16",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "layer_types": ["mamba"] * 5 + ["attention"],
    "mamba_n_heads": 128,
    "mamba_d_head": 64,
    "mamba_n_groups": 1,
    "mamba_d_state": 128,
    "mamba_d_conv": 4,
}
JAMBA = {  # transformers' JambaConfig, which is Jamba v0.1
    "architectures": ["JambaForCausalLM"],
    "dtype": "bfloat16",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "attn_layer_period": 8,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
}


@pytest.mark.parametrize(
    ("config", "served", "tokens"),
    [
        (QWEN35_4B, Served(), 528),
        (QWEN35_27B, Served(), 784),
        (QWEN35_27B, Served(block_size=128), 896),
        (NEMOTRON_30B, Served(), 2096),
        (NEMOTRON_120B, Served(kv_dtype="fp8"), 8320),
        (LING_FLASH, Served(), 1920),
        # (1,048,576 + 24,576) x 2 bytes of state: 1,048 tokens of 2 kB, in sixteens
        (QWEN3_NEXT, Served(), 544),
        # (3 x 8,448 + 1,048,576) x 2 bytes: 524.4 tokens of 4 kB
        (GRANITE4_SMALL, Served(), 528),
        # (3 x 8,192 + 131,072) x 2 bytes: 76 tokens of 4 kB
        (JAMBA, Served(), 80),
        # a state of half the size beside one of two kv heads, then beside that head on each GPU
        (NEMOTRON_30B, Served(tensor_parallel=2), 2096),
        (NEMOTRON_30B, Served(tensor_parallel=4), 1056),
        (NEMOTRON_30B, Served(state_dtype="bfloat16"), 1072),
    ],
)
def test_blocks_are_as_large_as_vllm_makes_them(
    config: dict[str, Any], served: Served, tokens: int
) -> None:
    layout = cache_layout(config, served)
    assert (layout.known, layout.block_size, layout.hash_block) == (True, tokens, tokens)
    assert (layout.shortest_prefix, layout.shortest_prompt) == (tokens, tokens + 1)
    assert layout.kept_blocks == (1,)


def test_it_says_why() -> None:
    assert cache_layout(QWEN35_4B).why == (
        "a state of 2.1 MB needs blocks of 528 tokens of 4,096 bytes"
    )


def test_a_small_state_leaves_the_block_as_it_is() -> None:
    """LFM2 1.2B: a short convolution keeps two positions, 8 kB, which fit into 16 tokens."""
    lfm = {
        "architectures": ["Lfm2ForCausalLM"],
        "dtype": "bfloat16",
        "layer_types": ["conv", "full_attention"],
        "hidden_size": 2048,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "conv_L_cache": 3,
    }
    layout = cache_layout(lfm)
    assert (layout.block_size, layout.kept_blocks) == (16, (1,))
    assert "fits into a block of 16" in layout.why


def test_a_hybrid_architecture_without_state_layers_is_plain_attention() -> None:
    """granite-4.0-micro: `ModelConfig.is_hybrid` asks its layer_types."""
    micro = GRANITE4_SMALL | {"layer_types": ["attention"] * 4, "num_hidden_layers": 4}
    layout = cache_layout(micro)
    assert (layout.known, layout.block_size, layout.state_bytes) == (True, 16, None)
    assert bytes_per_token(micro) == 4 * 4096


GPT_OSS = {  # 20b
    "architectures": ["GptOssForCausalLM"],
    "dtype": "bfloat16",
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
}
GEMMA3 = GPT_OSS | {
    "architectures": ["Gemma3ForCausalLM"],
    "sliding_window": 1024,
    "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
}


def test_a_window_needs_the_blocks_of_its_tokens_before_the_end_of_a_hit() -> None:
    """ceil((window - 1) / block): `SlidingWindowManager._contiguous_blocks_for_hit`."""
    assert cache_layout(GPT_OSS).kept_blocks == (8,)
    assert cache_layout(GEMMA3).kept_blocks == (64,)
    assert (cache_layout(GEMMA3).block_size, cache_layout(GEMMA3).window) == (16, 1024)
    assert "window of 1,024 tokens" in cache_layout(GEMMA3).why


def test_windows_in_every_layer_are_another_rule_which_is_said() -> None:
    """Mistral 7B v0.1: one group of layers, so vLLM notes no place where two prompts part."""
    mistral = LLAMA_8B | {"architectures": ["MistralForCausalLM"], "sliding_window": 4096}
    layout = cache_layout(mistral)
    assert (layout.known, layout.window, layout.kept_blocks) == (True, 4096, ())
    assert "not modelled" in layout.notes[0]
    gemma = {**GEMMA3, "layer_types": None, "sliding_window_pattern": 6}  # its old config
    assert cache_layout(gemma).kept_blocks == (64,)


def test_chunks_keep_every_block() -> None:
    """Llama 4: vLLM turns its hybrid cache manager off, unless an environment variable says not to."""
    llama4 = {
        "architectures": ["Llama4ForConditionalGeneration"],
        "text_config": LLAMA_8B
        | {
            "attention_chunk_size": 8192,
            "layer_types": ["chunked_attention"] * 3 + ["full_attention"],
        },
    }
    layout = cache_layout(llama4)
    assert (layout.known, layout.block_size, layout.kept_blocks) == (True, 16, ())
    assert "keep every block" in layout.notes[0]


def test_a_plain_model_has_blocks_of_16() -> None:
    layout = cache_layout(LLAMA_8B | {"architectures": ["LlamaForCausalLM"]})
    assert (layout.known, layout.block_size, layout.kept_blocks, layout.notes) == (True, 16, (), ())


def test_an_unknown_architecture_is_named() -> None:
    layout = cache_layout(LLAMA_8B | {"architectures": ["NewForCausalLM"]})
    assert (layout.known, layout.block_size) == (False, 16)
    assert layout.notes[0] == (
        "architecture NewForCausalLM is not known: blocks of 16 tokens assumed; check the server's"
        " /metrics"
    )
    assert "names no architecture" in cache_layout(LLAMA_8B).notes[0]


@pytest.mark.parametrize(
    "change",
    [
        {"layer_types": ["linear_attention", "full_attention"]},
        {"layer_types": ["full_attention", "some_new_attention"]},
        {"mamba_d_state": 128},
    ],
)
def test_an_unknown_architecture_with_states_has_no_block_size(change: dict[str, Any]) -> None:
    layout = cache_layout(LLAMA_8B | change | {"architectures": ["NewForCausalLM"]})
    assert (layout.block_size, layout.shortest_prompt, layout.kept_blocks) == (None, None, ())
    assert "NewForCausalLM" in layout.why
    assert "give --block-size" in layout.notes[0]


def test_layouts_that_depend_on_the_gpu_or_on_several_pages_have_no_block_size() -> None:
    latent = LLAMA_8B | {"architectures": ["DeepseekV3ForCausalLM"], "kv_lora_rank": 512}
    assert cache_layout(latent | {"qk_rope_head_dim": 64}).block_size is None
    gemma4 = GEMMA3 | {"architectures": ["Gemma4ForCausalLM"], "global_head_dim": 512}
    assert cache_layout(gemma4).block_size is None


def test_a_hybrid_config_that_lacks_a_number_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**NEMOTRON_30B, "ssm_state_size": None}))
    with pytest.raises(InputError, match=r"config\.json: no ssm_state_size above 0"):
        read_layout(tmp_path)
