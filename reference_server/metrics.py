"""/metrics under vLLM's names, so that whatever reads vLLM reads this server too."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from loadkit.core.split import Split
from reference_server.engine import Engine, Listener
from reference_server.request import Request

CAUSES = ("replay", "continuation", "shared", "miss_compulsory", "miss_capacity")
FINISH_REASONS = ("stop", "length", "abort", "error")
TTFT_BUCKETS_S = (0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40)
ITL_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5)
E2E_BUCKETS_S = (0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics(Listener):
    """Counters in tokens; prefix-cache figures are taken once a request, at first admission."""

    def __init__(self, model_name: str):
        self.registry = CollectorRegistry()
        self._model = model_name
        self._queries = self._counter("vllm:prefix_cache_queries", "Prompt tokens looked up")
        self._hits = self._counter("vllm:prefix_cache_hits", "Prompt tokens found in the cache")
        self._prompt = self._counter("vllm:prompt_tokens", "Prompt tokens of admitted requests")
        self._generated = self._counter("vllm:generation_tokens", "Tokens generated")
        self._preempted = self._counter("vllm:num_preemptions", "Requests dropped and requeued")
        self._ttft = self._histogram(
            "vllm:time_to_first_token_seconds", "Arrival to first token", TTFT_BUCKETS_S
        )
        self._itl = self._histogram(
            "vllm:inter_token_latency_seconds", "Gap between tokens", ITL_BUCKETS_S
        )
        self._e2e = self._histogram(
            "vllm:e2e_request_latency_seconds", "Arrival to end", E2E_BUCKETS_S
        )
        success = self._labelled(
            "vllm:request_success", "Requests ended, by reason", "finished_reason"
        )
        self._ended = {r: success.labels(model_name, r) for r in FINISH_REASONS}
        causes = self._labelled(
            "loadkit:prefix_cache_tokens", "Prompt tokens by why they hit or missed", "cause"
        )
        self._causes = {c: causes.labels(model_name, c) for c in CAUSES}

    def watch(self, engine: Engine) -> None:
        """Gauges are read from the engine when somebody asks."""
        for name, text, read in (
            ("num_requests_running", "Requests being computed", lambda: engine.num_running),
            ("num_requests_waiting", "Requests queued", lambda: engine.num_waiting),
            ("kv_cache_usage_perc", "Share of pages in use, 0..1", lambda: engine.cache_usage),
        ):
            gauge = Gauge(f"vllm:{name}", text, ("model_name",), registry=self.registry)
            gauge.labels(self._model).set_function(read)

    def render(self) -> bytes:
        return generate_latest(self.registry)

    def total(self, counter: str, **labels: str) -> int:
        """A counter's value now, in whole units."""
        named = {"model_name": self._model, **labels}
        return int(self.registry.get_sample_value(f"{counter}_total", named) or 0)

    # -- told by the engine

    def admitted(self, request: Request) -> None:
        split = request.split or Split(request.num_prompt)
        self._queries.inc(split.prompt_tokens)
        self._prompt.inc(split.prompt_tokens)
        self._hits.inc(split.hit)
        for cause, counter in self._causes.items():
            counter.inc(getattr(split, cause))

    def token(self, request: Request, since_last_s: float | None) -> None:
        self._generated.inc()
        if since_last_s is not None:
            self._itl.observe(since_last_s)
        elif request.first_token_s is not None:
            self._ttft.observe(request.first_token_s - request.arrival_s)

    def finished(self, request: Request) -> None:
        self._preempted.inc(request.num_preemptions)
        self._e2e.observe(time.monotonic() - request.arrival_s)
        self._ended[request.finish_reason or "error"].inc()

    # -- making them

    def _counter(self, name: str, text: str) -> Counter:
        counter = Counter(name, text, ("model_name",), registry=self.registry)
        return counter.labels(self._model)

    def _labelled(self, name: str, text: str, label: str) -> Counter:
        return Counter(name, text, ("model_name", label), registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        made = Histogram(name, text, ("model_name",), registry=self.registry, buckets=buckets)
        return made.labels(self._model)
