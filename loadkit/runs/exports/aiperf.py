"""The JSON of AIPerf's `profile_export_aiperf.json`: one object a metric, with its unit."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from loadkit.core.trace import FloatArray
from loadkit.runs.exports.measured import Measured

_PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)


def as_aiperf(measured: Measured) -> dict[str, Any]:
    """request_latency counts from the send, as AIPerf's does. inter_token_latency is AIPerf's name
    for the time per output token: (latency - TTFT) / (output tokens - 1)."""
    run, answered = measured.run, len(measured.number["sent_s"])
    output = float(measured.known("output_tokens").sum())
    start = run["started_unix_s"]
    data: dict[str, Any] = {
        "request_throughput": _single("requests/sec", measured.per_second(answered)),
        "request_count": _single("requests", float(answered)),
        "output_token_throughput": _single("tokens/sec", measured.per_second(output)),
        "request_latency": _spread("ms", 1000 * measured.latency_s),
        "time_to_first_token": _spread("ms", 1000 * measured.known("ttft_s")),
        "inter_token_latency": _spread("ms", 1000 * measured.known("tpot_s")),
        "output_sequence_length": _spread("tokens", measured.known("output_tokens")),
        "input_sequence_length": _spread("tokens", measured.known("prompt_tokens")),
        "goodput": _single("requests/sec", (run["goodput"] or {}).get("goodput_per_s")),
        "was_cancelled": any(reason["code"] == "interrupted" for reason in run["reasons"]),
        "error_summary": [_error(error) for error in run["errors"]],
        "start_time": _time(start),
        "end_time": _time(start + run["duration_s"]),
    }
    return {name: value for name, value in data.items() if value is not None}


def _single(unit: str, value: float | None) -> dict[str, Any] | None:
    return None if value is None else {"unit": unit, "avg": value}


def _spread(unit: str, values: FloatArray) -> dict[str, Any] | None:
    if not len(values):
        return None
    percentiles = {f"p{q}": float(np.percentile(values, q)) for q in _PERCENTILES}
    return {
        "unit": unit,
        "avg": float(values.mean()),
        **percentiles,
        "min": float(values.min()),
        "max": float(values.max()),
        "std": float(values.std()),
    }


def _error(error: dict[str, Any]) -> dict[str, Any]:
    details = {"code": error["status"], "type": error["outcome"], "message": error["error"]}
    return {"error_details": details, "count": error["requests"]}


def _time(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).replace(tzinfo=None).isoformat()
