"""`--model-config`: block size and rule of the served model, in analyze and forecast."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import Call

QWEN35_4B = {  # vLLM issue 40696: blocks of 528 tokens
    "architectures": ["Qwen3_5ForCausalLM"],
    "dtype": "bfloat16",
    "mamba_ssm_dtype": "float32",
    "layer_types": ["linear_attention", "full_attention"],
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_value_head_dim": 128,
}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "dtype": "float32",
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "hidden_size": 128,
}


def config_of(folder: Path, config: dict[str, Any]) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


def token_log(folder: Path, shared: int, own: int, requests: int = 4) -> Path:
    """Requests of as many sessions with a common beginning, as token ids."""
    rows = [
        {
            "prompt": [*range(shared), *range(50_000 * (k + 1), 50_000 * (k + 1) + own)],
            "session_id": str(k),
            "timestamp": k,
        }
        for k in range(requests)
    ]
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_prompts_shorter_than_the_models_block_can_never_hit(loadkit: Call, tmp_path: Path) -> None:
    """vLLM issue 40696: today's 78% in blocks of 16 is 0% on that server."""
    log, config = token_log(tmp_path, 400, 80), config_of(tmp_path, QWEN35_4B)
    before = json.loads(loadkit("analyze", log, "--json").out)
    assert before["infinite"]["hit_rate"] == 3 * 400 / (4 * 480)
    data = json.loads(loadkit("analyze", log, "--model-config", config, "--json").out)
    assert (data["block_size"], data["infinite"]["hit_rate"]) == (528, 0)
    assert "no prompt reaches 529 tokens: nothing can hit" in data["warnings"]
    told = data["model_blocks"]
    assert (told["architecture"], told["known"], told["applied"]) == (
        "Qwen3_5ForCausalLM",
        True,
        True,
    )
    assert (told["block_size"], told["hash_block"]) == (528, 528)
    assert (told["shortest_prefix_tokens"], told["shortest_prompt_tokens"]) == (528, 529)
    assert (told["long_enough"], told["kept"]) == (0, "places")
    assert {row["block_size"]: row["hit_rate"] for row in told["at"]} == {
        16: 0.625, 32: 3 * 384 / 1920, 128: 3 * 384 / 1920, 512: 0, 528: 0, 2048: 0
    }  # fmt: skip


def test_the_table_and_the_reason_are_printed(loadkit: Call, tmp_path: Path) -> None:
    log, config = token_log(tmp_path, 600, 600), config_of(tmp_path, QWEN35_4B)
    out = " ".join(loadkit("analyze", log, "--model-config", config).out.split())
    for text in (
        "Qwen3_5ForCausalLM in vLLM: blocks of 528 tokens",
        "a state of 2.1 MB needs blocks of 528 tokens of 4,096 bytes; hashes cover 528 tokens",
        "the shortest prefix that can hit has 528 tokens, the shortest prompt 529: 4 prompts",
        "the same log in blocks of hit rate prompts long enough",
        "528 33.0% 4",
        "as the model keeps them 22.0%",
    ):
        assert text in out


def test_states_that_count_as_kept_everywhere_are_asked_for(loadkit: Call, tmp_path: Path) -> None:
    log, config = token_log(tmp_path, 600, 600), config_of(tmp_path, QWEN35_4B)
    asked = ("analyze", log, "--model-config", config, "--json")
    rates = [
        json.loads(loadkit(*asked, "--kept", kept).out)["infinite"]["hit_rate"]
        for kept in ("places", "all")
    ]
    assert rates == [2 * 528 / 4800, 3 * 528 / 4800]
    assert loadkit(*asked, "--kept", "some").code == 2


def test_a_block_size_that_is_not_the_models_is_said(loadkit: Call, tmp_path: Path) -> None:
    log, config = token_log(tmp_path, 600, 600), config_of(tmp_path, QWEN35_4B)
    answer = loadkit("analyze", log, "--model-config", config, "--block-size", 16, "--json")
    data = json.loads(answer.out)
    assert (data["block_size"], data["model_blocks"]["applied"]) == (16, False)
    assert any(
        "figures are for --block-size 16, but vLLM gives Qwen3_5ForCausalLM blocks of 528" in text
        for text in data["warnings"]
    )


def test_the_rule_is_the_models_in_blocks_that_the_server_is_said_to_have(
    loadkit: Call, tmp_path: Path
) -> None:
    """Speculative decoding makes states larger, and so blocks: --block-size has the last word."""
    log, config = token_log(tmp_path, 600, 600), config_of(tmp_path, QWEN35_4B)
    answer = loadkit("forecast", log, "--model-config", config, "--block-size", 592, "--json")
    data = json.loads(answer.out)
    assert data["scenario"]["block_size"] == 592
    assert data["scenario"]["kept_blocks"] == [1]
    assert data["hit_rate"]["estimate"] == 2 * 592 / 4800


def test_a_log_of_ids_is_put_together_or_says_that_it_cannot(loadkit: Call, tmp_path: Path) -> None:
    config = config_of(tmp_path, QWEN35_4B)
    row = {"timestamp": 0, "input_length": 1100, "session_id": "a"}
    fine, coarse = tmp_path / "fine.jsonl", tmp_path / "coarse.jsonl"
    fine.write_text(json.dumps(row | {"hash_ids": list(range(69))}) + "\n")
    coarse.write_text(json.dumps(row | {"hash_ids": [1, 2, 3]}) + "\n")
    asked = ("--model-config", config, "--json", "--format", "mooncake")
    data = json.loads(loadkit("analyze", fine, *asked, "--block-size", 16).out)
    assert (data["block_size"], data["blocks"]) == (528, 2)
    data = json.loads(loadkit("analyze", coarse, *asked).out)
    assert (data["block_size"], data["model_blocks"]["applied"]) == (512, False)
    assert any("this model's blocks of 528 cannot be made" in text for text in data["warnings"])


def test_a_forecast_is_for_the_models_blocks(loadkit: Call, tmp_path: Path) -> None:
    log, config = token_log(tmp_path, 600, 600), config_of(tmp_path, QWEN35_4B)
    data = json.loads(loadkit("forecast", log, "--model-config", config, "--json").out)
    assert data["scenario"]["block_size"] == 528
    assert data["hit_rate"]["estimate"] == 2 * 528 / 4800
    assert data["model_blocks"]["shortest_prompt_tokens"] == 529
    assert "blocks of 528 tokens" in loadkit("forecast", log, "--model-config", config).out


def test_an_architecture_that_is_not_known_is_said(loadkit: Call, tmp_path: Path) -> None:
    log = token_log(tmp_path, 600, 600)
    config = config_of(tmp_path, LLAMA | {"architectures": ["NewForCausalLM"]})
    data = json.loads(loadkit("analyze", log, "--model-config", config, "--json").out)
    assert (data["block_size"], data["model_blocks"]["known"]) == (16, False)
    assert any("architecture NewForCausalLM is not known" in text for text in data["warnings"])
    config = config_of(tmp_path, LLAMA | {"architectures": ["NewForCausalLM"], "mamba_d_state": 8})
    data = json.loads(loadkit("forecast", log, "--model-config", config, "--json").out)
    assert data["model_blocks"]["block_size"] is None
    assert any("give --block-size" in text for text in data["warnings"])


def test_a_plain_model_changes_nothing_but_the_table(loadkit: Call, tmp_path: Path) -> None:
    log, config = token_log(tmp_path, 600, 600), config_of(tmp_path, LLAMA)
    plain = json.loads(loadkit("analyze", log, "--json").out)
    data = json.loads(loadkit("analyze", log, "--model-config", config, "--json").out)
    told = data.pop("model_blocks")
    assert data == plain
    assert (told["block_size"], told["kept"], told["notes"]) == (16, None, [])


@pytest.mark.parametrize(
    "option", [("--tensor-parallel", 2), ("--state-dtype", "float32"), ("--kept", "all")]
)
def test_what_is_said_of_a_model_needs_its_config(
    loadkit: Call, tmp_path: Path, option: tuple[str, Any]
) -> None:
    code, _, err = loadkit("analyze", token_log(tmp_path, 20, 5), *option)
    assert (code, f"{option[0]}: says nothing by itself" in err) == (2, True)


def test_another_engines_states_are_not_modelled(loadkit: Call, tmp_path: Path) -> None:
    log, config = token_log(tmp_path, 600, 600), config_of(tmp_path, QWEN35_4B)
    asked = ("analyze", log, "--model-config", config, "--engine", "sglang", "--json")
    data = json.loads(loadkit(*asked).out)
    assert any("how sglang keeps this model's states" in text for text in data["warnings"])


def test_a_sample_of_a_hybrids_log_asks_for_its_block_size(loadkit: Call, tmp_path: Path) -> None:
    log, config = token_log(tmp_path, 600, 600), config_of(tmp_path, QWEN35_4B)
    code, _, err = loadkit("analyze", log, "--model-config", config, "--sample", "50%")
    assert (code, "give --block-size 528" in err) == (2, True)
