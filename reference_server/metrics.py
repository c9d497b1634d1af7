"""/metrics under vLLM's names, so that whatever reads vLLM reads this server too.

No label has more values than these tables say, and none names a tenant, a key or a session.
`vllm:external_prefix_cache_*` is left out on purpose: `vllm:prefix_cache_hits` counts the hits of
all tiers here, as usage does, and `loadkit:prefix_cache_tier_tokens` tells them apart.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from loadkit.core.split import Split
from reference_server.engine import Engine, Listener
from reference_server.metric_tables import COUNTERS, HISTOGRAMS, TTFT_S
from reference_server.node import TIER_NAMES
from reference_server.request import Request
from reference_server.tiers.lower import Tier

CAUSES = ("replay", "continuation", "shared", "miss_compulsory", "miss_capacity")
MAIN_CAUSES = ("replay", "continuation", "shared", "miss")
FINISH_REASONS = ("stop", "length", "abort", "error")
REFUSALS = ("400", "401", "403", "404", "409", "413", "429", "500", "503", "other")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics(Listener):
    """Counters in tokens; prefix-cache figures are taken once a request, at first admission."""

    def __init__(self, model_name: str):
        self.registry = CollectorRegistry()
        self._model = model_name
        self._count = {name: self._counter(name, text) for name, text in COUNTERS.items()}
        self._of = {n: self._histogram(n, text, le) for n, (text, le) in HISTOGRAMS.items()}
        self._ended = self._counters(
            "vllm:request_success", "Replies ended, by reason", "finished_reason", FINISH_REASONS
        )
        self._causes = self._counters(
            "loadkit:prefix_cache_tokens",
            "Prompt tokens by why they hit or missed",
            "cause",
            CAUSES,
        )
        self._tiers = self._counters(
            "loadkit:prefix_cache_tier_tokens",
            "Cached tokens by where they lay",
            "tier",
            TIER_NAMES,
        )
        self._refused = self._counters(
            "loadkit:refused_requests", "Requests answered with an error", "status", REFUSALS
        )
        ttft = Histogram(
            "loadkit:time_to_first_token_seconds",
            "Arrival to first token, by the cause of most of the prompt's tokens",
            ("model_name", "cause"),
            registry=self.registry,
            buckets=TTFT_S,
        )
        self._ttft = {cause: ttft.labels(model_name, cause) for cause in MAIN_CAUSES}

    def watch(self, engine: Engine) -> None:
        """Gauges are read from the engine when somebody asks."""
        pool, quotas = engine.tree.pool, engine.tree.pool.quotas
        self._gauge("vllm:num_requests_running", "Replies computed", lambda: engine.num_running)
        self._gauge("vllm:num_requests_waiting", "Replies queued", lambda: engine.num_waiting)
        self._gauge(
            "vllm:kv_cache_usage_perc", "Share of pages in use, 0..1", lambda: engine.cache_usage
        )
        self._gauge(
            "loadkit:diversity_index",
            "Share of new prompts among the last 10,000, 0..1; NaN before the first",
            lambda: math.nan if engine.diversity.value is None else engine.diversity.value,
        )
        blocks = "Blocks that fill the device's capacity, by state"
        reads: dict[str, Callable[[], float]] = {
            "resident": lambda: pool.num_resident,
            "dead": lambda: pool.num_dead,
            "reserved": lambda: pool.num_reserved,
            "free": lambda: pool.num_blocks - pool.num_counted,
        }
        self._gauges("loadkit:cache_blocks", blocks, "state", reads)
        self._watch_tiers(engine)
        self._gauge("loadkit:tenants", "With blocks on the device", lambda: quotas.num_tenants)
        self._gauge("loadkit:tenants_at_quota", "Evict only their own", lambda: quotas.num_at_quota)
        self._gauge(
            "loadkit:largest_tenant_blocks", "Of the one with most", lambda: quotas.most_blocks
        )
        self._tell_settings(engine)

    def _watch_tiers(self, engine: Engine) -> None:
        pool = engine.tree.pool
        held: dict[str, Callable[[], float]] = {"device": lambda: pool.num_resident}
        room: dict[str, Callable[[], float]] = {"device": lambda: pool.num_blocks}
        for tier in engine.tree.lower.tiers:
            name = TIER_NAMES[tier.level]
            held[name] = partial(_num_entries, tier)
            room[name] = partial(float, tier.capacity)
        self._gauges("loadkit:tier_blocks", "Full blocks, by tier", "tier", held)
        self._gauges("loadkit:tier_capacity_blocks", "Most blocks of a tier", "tier", room)

    def _tell_settings(self, engine: Engine) -> None:
        made = engine.settings
        labels = {
            "model_name": self._model,
            "block_size": str(made.block_size),
            "num_gpu_blocks": str(made.num_blocks),
            "enable_prefix_caching": "True",
            "policy": made.policy,
            "tenant_quota_blocks": str(made.tenant_quota_blocks),
        }
        text = "What the cache was started with; num_gpu_blocks are the device's, CPU or not"
        info = Gauge("vllm:cache_config_info", text, tuple(labels), registry=self.registry)
        info.labels(**labels).set(1)

    def render(self) -> bytes:
        return generate_latest(self.registry)

    def total(self, counter: str, **labels: str) -> int:
        """A counter's value now, in whole units."""
        named = {"model_name": self._model, **labels}
        return int(self.registry.get_sample_value(f"{counter}_total", named) or 0)

    # -- told by the routes

    def refused(self, status: int) -> None:
        self._refused.get(str(status), self._refused["other"]).inc()

    def queued(self, requests: Sequence[Request]) -> None:
        """All choices of one request."""
        self._of["vllm:request_params_n"].observe(len(requests))
        self._of["vllm:request_params_max_tokens"].observe(requests[0].params.max_tokens)

    # -- told by the engine

    def admitted(self, request: Request) -> None:
        split = request.split or Split(request.num_prompt)
        self._count["vllm:prefix_cache_queries"].inc(split.prompt_tokens)
        self._count["vllm:prompt_tokens"].inc(split.prompt_tokens)
        self._count["vllm:prefix_cache_hits"].inc(split.hit)
        self._count["loadkit:kept_tail_tokens"].inc(request.num_kept_tail)
        self._of["vllm:request_prompt_tokens"].observe(split.prompt_tokens)
        self._of["loadkit:prefix_hit_share"].observe(split.rate("hit") or 0)
        for cause, counter in self._causes.items():
            counter.inc(getattr(split, cause))
        for counter, num in zip(self._tiers.values(), request.tier_tokens, strict=True):
            counter.inc(num)

    def token(self, request: Request, since_last_s: float | None) -> None:
        self._count["vllm:generation_tokens"].inc()
        if since_last_s is not None:
            self._of["vllm:inter_token_latency_seconds"].observe(since_last_s)
        elif request.first_token_s is not None:
            ttft_s = request.first_token_s - request.arrival_s
            self._of["vllm:time_to_first_token_seconds"].observe(ttft_s)
            self._ttft[main_cause(request)].observe(ttft_s)

    def step(self, num_tokens: int) -> None:
        self._of["vllm:iteration_tokens_total"].observe(num_tokens)

    def finished(self, request: Request) -> None:
        self._count["vllm:num_preemptions"].inc(request.num_preemptions)
        self._count["vllm:spec_decode_num_draft_tokens"].inc(request.num_drafted)
        self._count["vllm:spec_decode_num_accepted_tokens"].inc(request.num_accepted)
        self._ended[request.finish_reason or "error"].inc()
        self._of["vllm:e2e_request_latency_seconds"].observe(time.monotonic() - request.arrival_s)
        self._of["vllm:request_generation_tokens"].observe(request.num_output)
        for name, interval_s in phases(request).items():
            self._of[name].observe(interval_s)

    # -- making them

    def _counter(self, name: str, text: str) -> Counter:
        counter = Counter(name, text, ("model_name",), registry=self.registry)
        return counter.labels(self._model)

    def _counters(
        self, name: str, text: str, label: str, values: Sequence[str]
    ) -> dict[str, Counter]:
        counter = Counter(name, text, ("model_name", label), registry=self.registry)
        return {value: counter.labels(self._model, value) for value in values}

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        made = Histogram(name, text, ("model_name",), registry=self.registry, buckets=buckets)
        return made.labels(self._model)

    def _gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        gauge = Gauge(name, text, ("model_name",), registry=self.registry)
        gauge.labels(self._model).set_function(read)

    def _gauges(
        self, name: str, text: str, label: str, reads: dict[str, Callable[[], float]]
    ) -> None:
        gauge = Gauge(name, text, ("model_name", label), registry=self.registry)
        for value, read in reads.items():
            gauge.labels(self._model, value).set_function(read)


def _num_entries(tier: Tier) -> int:
    return len(tier.entries)


def main_cause(request: Request) -> str:
    """The cause of most of the prompt's tokens; of equal ones the first in MAIN_CAUSES."""
    split = request.split or Split(request.num_prompt)
    return max(MAIN_CAUSES, key=lambda cause: getattr(split, cause))


def phases(request: Request) -> dict[str, float]:
    """Seconds of each phase that the request came through; vLLM's names."""
    admitted_s, first_s, last_s = request.admitted_s, request.first_token_s, request.last_token_s
    if admitted_s is None:
        return {}
    found = {"vllm:request_queue_time_seconds": admitted_s - request.arrival_s}
    if first_s is None or last_s is None:
        return found
    found["vllm:request_prefill_time_seconds"] = first_s - admitted_s
    found["vllm:request_decode_time_seconds"] = last_s - first_s
    found["vllm:request_inference_time_seconds"] = last_s - admitted_s
    if request.num_output > 1:
        mean_s = (last_s - first_s) / (request.num_output - 1)
        found["vllm:request_time_per_output_token_seconds"] = mean_s
    return found
