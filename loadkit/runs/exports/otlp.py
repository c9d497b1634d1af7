"""A run's figures as OpenTelemetry metrics: OTLP/JSON, posted to a collector once the run is over.

Names, units and bucket bounds are those of the GenAI semantic conventions where they have one, else
they begin with `loadkit.`. No text of a prompt, no session, no key is in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np

from loadkit.core.errors import InputError
from loadkit.core.split import CAUSES
from loadkit.core.trace import FloatArray
from loadkit.runs.exports.measured import Measured

TIMEOUT_S = 10.0
CUMULATIVE = 2
DURATION_BOUNDS = tuple(0.01 * 2**power for power in range(14))
TOKEN_BOUNDS = tuple(float(4**power) for power in range(14))
TTFT_BOUNDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
TPOT_BOUNDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)


def post(measured: Measured, collector: str) -> None:
    """Send to COLLECTOR/v1/metrics, without a proxy. InputError: no answer, or not a 2xx."""
    url = f"{collector.rstrip('/')}/v1/metrics"
    try:
        answer = httpx.post(url, json=as_otlp(measured), timeout=TIMEOUT_S, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise InputError(f"no answer: {error}", where=url, remedy="is the collector up?") from error
    if not answer.is_success:
        raise InputError(
            f"answered {answer.status_code}", where=url, remedy="does it take OTLP/HTTP JSON?"
        )


def as_otlp(measured: Measured) -> dict[str, Any]:
    """One ExportMetricsServiceRequest in its JSON form (64-bit integers are strings)."""
    run = measured.run
    resource = {"service.name": "loadkit", "loadkit.profile": run["profile"].get("name", "")}
    scope = {"name": "loadkit", "version": run["versions"].get("loadkit-llm", "unknown")}
    return {
        "resourceMetrics": [
            {
                "resource": {"attributes": _attributes(resource)},
                "scopeMetrics": [{"scope": scope, "metrics": _metrics(measured)}],
            }
        ]
    }


def _metrics(measured: Measured) -> list[dict[str, Any]]:
    run, number = measured.run, measured.known
    asked = {"gen_ai.operation.name": "chat", "gen_ai.request.model": run["endpoint"]["model"]}
    durations = (
        ("gen_ai.client.operation.duration", measured.latency_s, DURATION_BOUNDS),
        ("gen_ai.server.time_to_first_token", number("ttft_s"), TTFT_BOUNDS),
        ("gen_ai.server.time_per_output_token", number("tpot_s"), TPOT_BOUNDS),
    )
    metrics = [
        _histogram(name, "s", [_points(values, bounds, asked, run)])
        for name, values, bounds in durations
    ]
    tokens = [
        _points(number(f"{column}_tokens"), TOKEN_BOUNDS, asked | {"gen_ai.token.type": kind}, run)
        for column, kind in (("prompt", "input"), ("output", "output"))
    ]
    metrics.append(_histogram("gen_ai.client.token.usage", "{token}", tokens))
    outcomes = {name: count for name, count in run["requests"].items() if name != "scheduled"}
    metrics.append(_sum("loadkit.requests", "{request}", "loadkit.outcome", outcomes, run))
    causes = {cause: run["split"][cause] for cause in CAUSES if run["split"][cause] is not None}
    metrics.append(_sum("loadkit.prompt_tokens", "{token}", "loadkit.cause", causes, run))
    return metrics


def _histogram(name: str, unit: str, points: list[dict[str, Any]]) -> dict[str, Any]:
    histogram = {"aggregationTemporality": CUMULATIVE, "dataPoints": points}
    return {"name": name, "unit": unit, "histogram": histogram}


def _points(
    values: FloatArray, bounds: Sequence[float], attributes: dict[str, str], run: dict[str, Any]
) -> dict[str, Any]:
    """Bucket i holds values above bound i - 1 and at most bound i."""
    buckets = np.bincount(np.searchsorted(bounds, values, "left"), minlength=len(bounds) + 1)
    return {
        **_span(run),
        "attributes": _attributes(attributes),
        "count": str(len(values)),
        "sum": float(values.sum()),
        "explicitBounds": list(bounds),
        "bucketCounts": [str(count) for count in buckets],
    }


def _sum(
    name: str, unit: str, key: str, counts: dict[str, int], run: dict[str, Any]
) -> dict[str, Any]:
    points = [
        {**_span(run), "attributes": _attributes({key: label}), "asInt": str(count)}
        for label, count in counts.items()
    ]
    total = {"aggregationTemporality": CUMULATIVE, "isMonotonic": True, "dataPoints": points}
    return {"name": name, "unit": unit, "sum": total}


def _span(run: dict[str, Any]) -> dict[str, str]:
    start, end = run["started_unix_s"], run["started_unix_s"] + run["duration_s"]
    return {"startTimeUnixNano": str(int(start * 1e9)), "timeUnixNano": str(int(end * 1e9))}


def _attributes(values: dict[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": str(value)}} for key, value in values.items()]
