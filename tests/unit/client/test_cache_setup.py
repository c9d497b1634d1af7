"""Caches as engines describe them on /metrics, in shapes recorded from their pages."""

from __future__ import annotations

import pytest

from loadkit.client.cache_setup import CacheSetup, parse_cache_setup


def vllm(**labels: str) -> str:
    """One engine's series with the labels that vLLM shows, some replaced."""
    shown = {
        "block_size": "16",
        "cache_dtype": "auto",
        "cpu_offload_gb": "0",
        "enable_prefix_caching": "True",
        "engine": "0",
        "gpu_memory_utilization": "0.9",
        "num_cpu_blocks": "None",
        "num_gpu_blocks": "2375",
        "num_gpu_blocks_override": "None",
        "sliding_window": "None",
    }
    text = ",".join(f'{name}="{value}"' for name, value in (shown | labels).items())
    return f"# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{{{text}}} 1.0\n"


def test_vllm_tells_block_size_and_blocks_of_which_one_is_a_placeholder() -> None:
    assert parse_cache_setup(vllm()) == CacheSetup(1, 16, 2374, True)


def test_engines_are_added_up_and_counted() -> None:
    two = vllm() + vllm(engine="1", num_gpu_blocks="2001")
    assert parse_cache_setup(two) == CacheSetup(2, 16, 4374, True)
    unlike = parse_cache_setup(vllm() + vllm(engine="1", block_size="32"))
    assert unlike == CacheSetup(2, None, None, True)


def test_a_router_that_adds_up_pages_shows_its_engines_as_the_value() -> None:
    assert parse_cache_setup(vllm().replace(" 1.0", " 3.0")) == CacheSetup(3, 16, 3 * 2374, True)


def test_an_engine_that_does_not_know_its_blocks_makes_the_sum_unknown() -> None:
    """vLLM 0.8 showed the word None (its issue 15719)."""
    assert parse_cache_setup(vllm(num_gpu_blocks="None")) == CacheSetup(1, 16, None, True)
    half = parse_cache_setup(vllm() + vllm(engine="1", num_gpu_blocks="None"))
    assert half == CacheSetup(2, 16, None, True)


def test_prefix_caching_that_is_off_is_told() -> None:
    found = parse_cache_setup(vllm(enable_prefix_caching="False"))
    assert found is not None
    assert found.prefix_caching is False


@pytest.mark.parametrize(
    ("tokens", "known"), [("38000", True), ("37984", True), ("9494", False), ("None", True)]
)
def test_tokens_that_blocks_of_one_kind_cannot_hold_leave_the_capacity_unknown(
    tokens: str, known: bool
) -> None:
    """2,375 x 16 = 38,000; a model with layers of several kinds shares its blocks among them."""
    found = parse_cache_setup(vllm(kv_cache_size_tokens=tokens))
    assert found == CacheSetup(1, 16, 2374 if known else None, True)


# As vLLM 0.32 showed them for a small Qwen3-Next, on a CPU with --block-size 32: blocks raised to 96.
QWEN3_NEXT = {
    "block_size": "96",
    "effective_attention_block_size": "96",
    "mamba_block_size": "32",
    "mamba_cache_mode": "align",
    "prefix_cache_retention_interval": "0",
    "prefix_match_unit": "None",
    "hash_block_size": "None",
    "cache_hit_alignment_tokens": "None",
    "num_gpu_blocks": "400",
    "kv_cache_size_tokens": "36408",
}


def test_a_hybrids_block_is_the_one_it_was_raised_to() -> None:
    """Its states are kept at a few places, and how many tokens its blocks hold is not known."""
    assert parse_cache_setup(vllm(**QWEN3_NEXT)) == CacheSetup(1, 96, None, True, (1,))
    dense = QWEN3_NEXT | {"prefix_cache_retention_interval": "None"}
    assert parse_cache_setup(vllm(**dense)) == CacheSetup(1, 96, None, True)


def test_hits_end_where_blocks_of_every_kind_do() -> None:
    """vLLM issue 57610: Gemma 4 has blocks of 16 for windows and of 32 for full attention."""
    gemma = {
        "effective_attention_block_size": "32",
        "sliding_window": "1024",
        "kv_cache_size_tokens": "20000",
        "prefix_cache_retention_interval": "0",
    }
    assert parse_cache_setup(vllm(**gemma)) == CacheSetup(1, 32, None, True, (32,))
    told = parse_cache_setup(vllm(**gemma, cache_hit_alignment_tokens="64"))
    assert told == CacheSetup(1, 64, None, True, (16,))


def test_windows_in_one_pool_are_kept_whole() -> None:
    """Without vLLM's hybrid cache manager: tokens are blocks times their size."""
    one = {
        "sliding_window": "1024",
        "kv_cache_size_tokens": "38000",
        "prefix_cache_retention_interval": "0",
    }
    assert parse_cache_setup(vllm(**one)) == CacheSetup(1, 16, 2374, True)


def test_states_cut_finer_hit_at_the_finer_unit() -> None:
    finer = parse_cache_setup(vllm(**QWEN3_NEXT | {"prefix_match_unit": "32"}))
    assert finer is not None
    assert finer.block_size == 32


def test_a_hybrids_block_of_16_is_not_believed_where_nobody_says_that_it_is_in_use() -> None:
    """vLLM 0.27 showed the size before it was raised (its issue 53749); --block-size may name it."""
    old = vllm(mamba_cache_mode="align", block_size="16")
    assert parse_cache_setup(old) == CacheSetup(1, None, None, True)
    assert parse_cache_setup(vllm(mamba_cache_mode="align", block_size="528")) == CacheSetup(
        1, 528, None, True
    )


SGLANG = """\
# TYPE sglang:page_size gauge
# TYPE sglang:num_pages gauge
sglang:page_size{engine_type="unified",model_name="m",tp_rank="0"} 16.0
sglang:page_size{engine_type="unified",model_name="m",tp_rank="1"} 16.0
sglang:num_pages{engine_type="unified",model_name="m",tp_rank="0"} 65088.0
sglang:num_pages{engine_type="unified",model_name="m",tp_rank="1"} 65088.0
"""


def test_sglangs_tensor_ranks_share_one_pool() -> None:
    assert parse_cache_setup(SGLANG) == CacheSetup(1, 16, 65088)


def test_sglangs_data_ranks_have_a_pool_each() -> None:
    assert parse_cache_setup(SGLANG.replace("tp_rank", "dp_rank")) == CacheSetup(2, 16, 130176)


def test_sglang_before_0_5_11_has_them_as_labels() -> None:
    old = 'sglang:cache_config_info{model_name="m",page_size="64",num_pages="100"} 1.0\n'
    assert parse_cache_setup(old) == CacheSetup(1, 64, 100)


def test_a_tier_in_host_memory_leaves_sglangs_capacity_unknown() -> None:
    tiered = SGLANG + 'sglang:hicache_host_total_tokens{tp_rank="0"} 2e6\n'
    assert parse_cache_setup(tiered) == CacheSetup(1, 16, None)
    assert parse_cache_setup(tiered.replace("2e6", "0")) == CacheSetup(1, 16, 65088)


@pytest.mark.parametrize("text", ["", "<html>", "vllm:num_requests_running 0\n"])
def test_a_page_without_them_tells_nothing(text: str) -> None:
    assert parse_cache_setup(text) is None


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf"])
def test_a_sample_that_is_no_number_counts_as_no_engine(value: str) -> None:
    broken = vllm(engine="1").replace("} 1.0", f"}} {value}")
    assert parse_cache_setup(broken) is None
    both = vllm() + broken.split("\n", 1)[1]
    assert parse_cache_setup(both) == parse_cache_setup(vllm())
