"""/metrics: vLLM's names, bounded labels, and figures that agree with usage."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from engine_builders import make_lower, make_request, run
from http_calls import BODY, call, make_service
from prometheus_client.parser import text_string_to_metric_families

from loadkit.core.split import Split
from reference_server.engine import Engine, EngineSettings
from reference_server.metrics import Metrics, main_cause, phases
from reference_server.service import Service

VLLM = [
    "cache_config_info",
    "e2e_request_latency_seconds",
    "generation_tokens",
    "inter_token_latency_seconds",
    "iteration_tokens_total",
    "kv_cache_usage_perc",
    "num_preemptions",
    "num_requests_running",
    "num_requests_waiting",
    "prefix_cache_hits",
    "prefix_cache_queries",
    "prompt_tokens",
    "request_decode_time_seconds",
    "request_generation_tokens",
    "request_inference_time_seconds",
    "request_params_max_tokens",
    "request_params_n",
    "request_prefill_time_seconds",
    "request_prompt_tokens",
    "request_queue_time_seconds",
    "request_success",
    "request_time_per_output_token_seconds",
    "spec_decode_num_accepted_tokens",
    "spec_decode_num_draft_tokens",
    "time_to_first_token_seconds",
]
MAX_SAMPLES = 600


@pytest.fixture
def service() -> Iterator[Service]:
    made = make_service()
    yield made
    assert made.engine is not None
    made.engine.stop()


def samples(service: Service) -> dict[tuple[str, ...], float]:
    """Value by name and label values without the model's."""
    families = text_string_to_metric_families(call(service, "GET", "/metrics").text)
    return {
        (sample.name, *(v for k, v in sample.labels.items() if k != "model_name")): sample.value
        for family in families
        for sample in family.samples
    }


def test_vllms_names_are_all_there(service: Service) -> None:
    families = text_string_to_metric_families(call(service, "GET", "/metrics").text)
    names = {family.name for family in families}
    assert {f"vllm:{name}" for name in VLLM} <= names


def test_no_traffic_makes_new_series(service: Service) -> None:
    """Salts, sessions, models, paths and refusals of all kinds: the series stay the same."""
    before = samples(service).keys()
    for number in range(5):
        fields = {"cache_salt": f"s{number}", "metadata": {"session_id": f"m{number}"}}
        call(service, "POST", "/v1/completions", json=BODY | fields)
        call(service, "POST", "/v1/completions", json=BODY | {"model": f"other{number}"})
        call(service, "GET", f"/no/such/path/{number}")
        call(service, "POST", "/v1/completions", json=BODY | {"n": 17})
    after = samples(service)
    assert after.keys() == before
    assert len(after) < MAX_SAMPLES
    refused = "loadkit:refused_requests_total"
    assert (after[refused, "404"], after[refused, "400"], after[refused, "429"]) == (5, 5, 0)


def test_the_diversity_index_is_nan_until_there_was_a_request(service: Service) -> None:
    assert math.isnan(samples(service)["loadkit:diversity_index",])
    for _ in range(4):
        call(service, "POST", "/v1/completions", json=BODY)
    assert samples(service)["loadkit:diversity_index",] == 0.25


def test_choices_count_once_as_prompt_and_each_as_reply(service: Service) -> None:
    """A prompt of 9: two full blocks of 4. Blocks fill as three replies of 4 go on."""
    call(service, "POST", "/v1/completions", json=BODY | {"prompt": [5] * 9, "n": 3})
    call(service, "POST", "/v1/completions", json=BODY | {"prompt": [5] * 9})
    told = samples(service)
    assert told["vllm:prompt_tokens_total",] == told["vllm:prefix_cache_queries_total",] == 18
    assert told["vllm:prefix_cache_hits_total",] == 8
    assert told["loadkit:prefix_cache_tokens_total", "replay"] == 8
    assert told["loadkit:prefix_cache_tier_tokens_total", "device"] == 8
    assert told["vllm:generation_tokens_total",] == 16
    assert told["vllm:request_success_total", "length"] == 4
    assert told["vllm:request_params_n_sum",] == 4
    assert told["vllm:request_prompt_tokens_count",] == 2
    assert told["loadkit:prefix_hit_share_bucket", "0.0"] == 1
    assert told["loadkit:prefix_hit_share_sum",] == pytest.approx(8 / 9)


def test_tiers_and_tenants_are_numbers_without_names() -> None:
    """Two tenants of 3 blocks each on a device of 4, at a quota of 3: one block went to the host."""
    metrics = Metrics("tiny")
    service = make_service(num_blocks=4, tenant_quota_blocks=3)
    assert service.engine is not None
    service.engine.stop()
    engine = Engine(
        service.engine.runner,
        EngineSettings(block_size=4, num_blocks=4, tenant_quota_blocks=3),
        metrics,
        make_lower(5, 6),
    )
    service.metrics = metrics
    metrics.watch(engine)
    run(engine, [1] * 12)
    told = samples(service)
    assert told["loadkit:tier_blocks", "device"] == 3
    assert told["loadkit:tier_capacity_blocks", "host"] == 5
    assert told["loadkit:tier_capacity_blocks", "disk"] == 6
    assert told["loadkit:tenants",] == told["loadkit:tenants_at_quota",] == 1
    assert told["loadkit:largest_tenant_blocks",] == 3


def test_a_request_is_put_under_the_cause_of_most_of_its_prompt() -> None:
    engine = make_service().engine
    assert engine is not None
    engine.stop()
    request = make_request(engine, [1] * 10)
    for split, cause in (
        (Split(10), "miss"),
        (Split(10, shared=6), "shared"),
        (Split(10, continuation=3, shared=3), "miss"),
        (Split(10, replay_cross_session=5), "replay"),
        (Split(10, continuation=4, shared=4), "continuation"),
    ):
        request.split = split
        assert main_cause(request) == cause


def test_phases_are_told_as_far_as_the_request_came() -> None:
    engine = make_service().engine
    assert engine is not None
    engine.stop()
    request = make_request(engine, [1] * 3)
    request.arrival_s = 10.0
    assert phases(request) == {}
    request.admitted_s = 11.0
    assert phases(request) == {"vllm:request_queue_time_seconds": 1.0}
    request.first_token_s, request.last_token_s = 13.0, 19.0
    request.tokens += [1, 1, 1]
    assert phases(request) == {
        "vllm:request_queue_time_seconds": 1.0,
        "vllm:request_prefill_time_seconds": 2.0,
        "vllm:request_decode_time_seconds": 6.0,
        "vllm:request_inference_time_seconds": 8.0,
        "vllm:request_time_per_output_token_seconds": 3.0,
    }
