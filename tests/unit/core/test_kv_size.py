"""Bytes of KV cache a token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadkit.core.errors import InputError
from loadkit.core.kv_size import bytes_per_token, read_bytes_per_token
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
