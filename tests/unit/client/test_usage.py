"""Cached tokens in each dialect. Not reported must stay None."""

from __future__ import annotations

import pytest

from loadkit.client.usage import read_usage


def test_openai_vllm_and_sglang() -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 7}
    details = {"prompt_tokens_details": {"cached_tokens": 64}}
    assert read_usage({"usage": usage | details})[:4] == (100, 7, 64, None)


def test_no_cached_tokens_reported_is_none_and_zero_is_zero() -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 7}
    assert read_usage({"usage": usage}).cached_tokens is None
    assert read_usage({"usage": usage | {"prompt_tokens_details": None}}).cached_tokens is None
    zero = usage | {"prompt_tokens_details": {"cached_tokens": 0}}
    assert read_usage({"usage": zero}).cached_tokens == 0


def test_anthropic_leaves_cached_tokens_out_of_its_input_tokens() -> None:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 60,
        "cache_creation_input_tokens": 30,
        "output_tokens": 5,
    }
    assert read_usage({"usage": usage})[:4] == (100, 5, 60, None)


def test_deepseek() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 3,
        "prompt_cache_hit_tokens": 64,
        "prompt_cache_miss_tokens": 36,
    }
    assert read_usage({"usage": usage})[:4] == (100, 3, 64, None)


def test_llama_cpp_timings_count_only_tokens_that_were_not_cached() -> None:
    assert read_usage({"timings": {"cache_n": 40, "prompt_n": 12, "predicted_n": 8}})[:4] == (
        52,
        8,
        40,
        None,
    )


def test_usage_goes_before_timings() -> None:
    answer = {
        "usage": {"prompt_tokens": 52, "completion_tokens": 8},
        "timings": {"cache_n": 40, "prompt_n": 12},
    }
    assert read_usage(answer)[:4] == (52, 8, 40, None)


def test_the_reference_servers_split_comes_along() -> None:
    split = {"replay": 16, "shared": 32, "miss_compulsory": 52, "note": "no count"}
    usage = {"prompt_tokens": 100, "completion_tokens": 1, "loadkit": split}
    assert read_usage({"usage": usage}).server_split == {
        "replay": 16,
        "shared": 32,
        "miss_compulsory": 52,
    }


def test_nonsense_is_none() -> None:
    for bad in (None, 7, [], {"prompt_tokens": "9", "completion_tokens": -1}):
        assert read_usage({"usage": bad})[:4] == (None, None, None, None)
    assert read_usage({"usage": {"prompt_tokens": True}}).prompt_tokens is None


def test_counts_written_as_floats_are_counts_and_fractions_are_none() -> None:
    usage = {"prompt_tokens": 100.0, "completion_tokens": 3.0, "cached_tokens": 64.5}
    assert read_usage({"usage": usage})[:4] == (100, 3, None, None)
    assert isinstance(read_usage({"usage": usage}).prompt_tokens, int)
    assert read_usage({"usage": {"prompt_tokens": float("nan")}}).prompt_tokens is None


def test_cached_tokens_directly_in_usage() -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 3, "cached_tokens": 64}
    assert read_usage({"usage": usage}).cached_tokens == 64
    details = {"prompt_tokens_details": {"cached_tokens": 32}}
    assert read_usage({"usage": usage | details}).cached_tokens == 32


def test_groqs_usage_stands_beside_and_counts_where_there_is_no_other() -> None:
    groq = {"usage": {"prompt_tokens": 100, "completion_tokens": 3, "queue_time": 0.1}}
    assert read_usage({"x_groq": groq})[:4] == (100, 3, None, None)
    assert read_usage({"usage": {"prompt_tokens": 7}, "x_groq": groq}).prompt_tokens == 7


@pytest.mark.parametrize("said", ["64", 0.5, -1, [64], True])
def test_a_count_that_cannot_be_is_told_from_none_at_all(said: object) -> None:
    """None may be filled in by other witnesses; what cannot be true says that the server is not one."""
    usage = {"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": said}}
    found = read_usage({"usage": usage})
    assert found.cached_tokens is None
    assert found.doubt is not None
    assert "is no number of tokens" in found.doubt
    for nothing in (
        {},
        {"prompt_tokens_details": None},
        {"prompt_tokens_details": {"cached_tokens": None}},
    ):
        assert read_usage({"usage": {"prompt_tokens": 100, **nothing}}).doubt is None
