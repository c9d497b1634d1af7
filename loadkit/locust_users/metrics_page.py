"""loadkit's own Prometheus page while a run is going on (`--metrics-port`), on loopback.

What it shows is the live view: `run.json` is made from the journals, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gevent.pywsgi import WSGIServer
from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from loadkit.locust_users.live import get_live
from loadkit.runs.latency import CAUSES as PARTS

QUANTILES = (("0.5", "p50_s"), ("0.99", "p99_s"))


def serve_metrics(port: int) -> WSGIServer:
    """Serve /metrics at 127.0.0.1; OSError when the port is taken."""
    server = WSGIServer(("127.0.0.1", port), _app, log=None)
    server.start()
    return server


def _app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ.get("PATH_INFO") != "/metrics":
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"see /metrics\n"]
    start_response("200 OK", [("Content-Type", CONTENT_TYPE_LATEST)])
    return [metrics_page(get_live().snapshot())]


def metrics_page(view: dict[str, Any]) -> bytes:
    """The live view (`loadkit.live/1`) as Prometheus text."""
    registry = CollectorRegistry()
    registry.register(_Families(view))
    return generate_latest(registry)


class _Families:
    """A collector of one view."""

    def __init__(self, view: dict[str, Any]):
        self.view = view

    def collect(self) -> Iterable[Any]:
        view = self.view
        requests = CounterMetricFamily("loadkit_requests", "Finished requests", labels=["outcome"])
        for one in view["outcomes"]:
            requests.add_metric([one["outcome"]], one["requests"])
        tokens = CounterMetricFamily(
            "loadkit_prompt_tokens", "Prompt tokens by cause of the cache hit", labels=["cause"]
        )
        for part in (*PARTS, "not_reported"):
            tokens.add_metric([part], view["totals"][part])
        ttft = GaugeMetricFamily(
            "loadkit_ttft_seconds",
            "Time to first token so far, by cause",
            labels=["cause", "quantile"],
        )
        for one in view["ttft"]:
            for quantile, key in QUANTILES:
                if one[key] is not None:
                    ttft.add_metric([one["cause"], quantile], one[key])
        yield from (requests, tokens, ttft, self._delay())
        for name in ("hit_rate", "organic_hit_rate"):
            if view[name] is not None:
                yield GaugeMetricFamily(f"loadkit_{name}", "Token-weighted", value=view[name])

    def _delay(self) -> GaugeMetricFamily:
        delay = GaugeMetricFamily(
            "loadkit_schedule_delay_seconds", "Actual minus intended send", labels=["quantile"]
        )
        for quantile, key in QUANTILES:
            if self.view["schedule_delay"][key] is not None:
                delay.add_metric([quantile], self.view["schedule_delay"][key])
        return delay
