"""Prefix-cache counters of each engine, from metrics pages written out by hand."""

from __future__ import annotations

import time

import pytest

from loadkit.client.cache_setup import parse_cache_setup
from loadkit.client.prometheus import parse_prefix_counters

VLLM = """\
# HELP vllm:prefix_cache_queries_total queries
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 1000.0
vllm:prefix_cache_queries_total{engine="1",model_name="m"} 500.0
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 300.0
vllm:prefix_cache_hits_total{engine="1",model_name="m"} 100.0
# TYPE vllm:prefix_cache_hits_created gauge
vllm:prefix_cache_hits_created{engine="0",model_name="m"} 1.7e9
"""


def test_vllm_is_summed_over_engines() -> None:
    counters = parse_prefix_counters(VLLM)
    assert counters is not None
    assert (counters.source, counters.queries, counters.hits) == ("vllm", 1500.0, 400.0)
    assert counters.by_cause == {}


def test_names_without_total_are_the_same_counters() -> None:
    text = "vllm:prefix_cache_queries 10\nvllm:prefix_cache_hits 4\n"
    counters = parse_prefix_counters(text)
    assert counters is not None
    assert (counters.queries, counters.hits) == (10.0, 4.0)


def test_an_external_store_adds_hits_but_no_queries() -> None:
    external = (
        "vllm:external_prefix_cache_queries_total 1100\nvllm:external_prefix_cache_hits_total 50\n"
    )
    counters = parse_prefix_counters(VLLM + external)
    assert counters is not None
    assert (counters.queries, counters.hits) == (1500.0, 450.0)


def test_sglang_uses_token_counters_and_never_the_hit_rate_gauge() -> None:
    text = (
        "sglang:cache_hit_rate 0.99\n"
        "sglang:prompt_tokens_total 200\n"
        'sglang:cached_tokens_total{cache_source="device"} 40\n'
        'sglang:cached_tokens_total{cache_source="host"} 10\n'
    )
    counters = parse_prefix_counters(text)
    assert counters is not None
    assert (counters.source, counters.queries, counters.hits) == ("sglang", 200.0, 50.0)


def test_llama_cpps_prompt_tokens_are_the_ones_not_cached() -> None:
    text = "llamacpp:prompt_tokens_total 30\nllamacpp:prompt_tokens_cached_total 70\n"
    counters = parse_prefix_counters(text)
    assert counters is not None
    assert (counters.source, counters.queries, counters.hits) == ("llamacpp", 100.0, 70.0)


def test_the_reference_server_adds_tokens_by_cause() -> None:
    cause = 'loadkit:prefix_cache_tokens_total{cause="replay"} 64\n'
    counters = parse_prefix_counters(VLLM + cause)
    assert counters is not None
    assert counters.by_cause == {"replay": 64.0}


@pytest.mark.parametrize(
    "text",
    ["", "<html>no metrics here</html>", "http_requests_total 7\n", "sglang:cache_hit_rate 0.5\n"],
)
def test_without_such_counters_there_is_none(text: str) -> None:
    assert parse_prefix_counters(text) is None


def test_llama_cpp_without_its_cached_counter_cannot_give_a_rate() -> None:
    assert parse_prefix_counters("llamacpp:prompt_tokens_total 30\n") is None


def test_a_broken_line_of_another_family_takes_nothing_away_and_labels_are_known_words() -> None:
    broken = 'http_requests{path="/x" 7\nvllm:other_total{ 1\n'
    foreign = 'loadkit:prefix_cache_tokens_total{cause="sk-canary-key"} 64\n'
    counters = parse_prefix_counters(broken + VLLM + foreign)
    assert counters == parse_prefix_counters(VLLM)
    assert counters is not None


def test_a_page_made_to_keep_the_parser_busy_is_given_up_at_once() -> None:
    """A line of 16 MB would take hours; that many lines, minutes."""
    labels = ",".join(f'a{number}="x"' for number in range(1_000_000))
    began = time.process_time()
    assert parse_prefix_counters(f"vllm:prefix_cache_hits_total{{{labels}}} 1\n{VLLM}") is None
    assert parse_cache_setup(f"vllm:cache_config_info{{{labels}}} 1\n") is None
    assert parse_prefix_counters(f"vllm:other{{{labels}}} 1\n{VLLM}") is not None
    assert parse_prefix_counters('vllm:prefix_cache_hits_total{a="x"} 1\n' * 400_000) is None
    assert time.process_time() - began < 60


@pytest.mark.parametrize(
    "line", ['vllm:prefix_cache_hits_total{a="', "vllm:prefix_cache_hits_total"]
)
def test_a_broken_line_of_our_own_counters_makes_them_unknown(line: str) -> None:
    assert parse_prefix_counters(VLLM + line) is None


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "-1", "1e300"])
def test_what_is_no_number_counts_nothing(value: str) -> None:
    queries = f"vllm:prefix_cache_queries_total {value}\n"
    assert parse_prefix_counters(queries + "vllm:prefix_cache_hits_total 3\n") is None
    other_engine = f'vllm:prefix_cache_hits_total{{engine="9"}} {value}\n'
    assert parse_prefix_counters(VLLM + other_engine) == parse_prefix_counters(VLLM)


def test_the_start_of_the_process_that_counts_is_read_where_it_is_shown() -> None:
    started = "process_start_time_seconds 1.75e9\n"
    counters = parse_prefix_counters(VLLM + started)
    assert counters is not None
    assert counters.started_unix_s == 1.75e9
    unknown = parse_prefix_counters(VLLM)
    assert unknown is not None
    assert unknown.started_unix_s is None
