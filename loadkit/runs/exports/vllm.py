"""The JSON of `vllm bench serve --save-result`, without --save-detailed's lists.

Its percentiles are numpy's (linear), its latency counts from the send; so do these figures here.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from loadkit.core.trace import FloatArray
from loadkit.runs.exports.measured import Measured


def as_vllm(measured: Measured) -> dict[str, Any]:
    run, counts = measured.run, measured.run["requests"]
    completed = len(measured.number["sent_s"])
    prompt, output = (float(measured.known(f"{k}_tokens").sum()) for k in ("prompt", "output"))
    arrivals = run["profile"].get("arrivals", {})
    data: dict[str, Any] = {
        "date": time.strftime("%Y%m%d-%H%M%S", time.gmtime(run["started_unix_s"])),
        "backend": "openai-chat",
        "label": run["profile"].get("name"),
        "model_id": run["endpoint"]["model"],
        "num_prompts": counts["scheduled"],
        "duration": measured.duration_s,
        "completed": completed,
        "failed": counts["scheduled"] - completed,
        "total_input_tokens": int(prompt),
        "total_output_tokens": int(output),
        "request_throughput": measured.per_second(completed),
        "output_throughput": measured.per_second(output),
        "total_token_throughput": measured.per_second(prompt + output),
        "request_rate": arrivals.get("rate_per_s"),
        "burstiness": arrivals.get("burstiness"),
        "max_concurrency": arrivals.get("users"),
        "tokenizer_id": (run["tokenizer"] or {}).get("name"),
        "request_goodput": (run["goodput"] or {}).get("goodput_per_s"),
        **_figures("ttft", measured.known("ttft_s")),
        **_figures("tpot", measured.known("tpot_s")),
        **_figures("itl", measured.gaps_s),
        **_figures("e2el", measured.latency_s),
    }
    return {name: value for name, value in data.items() if value is not None}


def _figures(name: str, seconds: FloatArray) -> dict[str, float]:
    if not len(seconds):
        return {}
    values = 1000 * seconds
    return {
        f"mean_{name}_ms": float(values.mean()),
        f"median_{name}_ms": float(np.median(values)),
        f"std_{name}_ms": float(values.std()),
        **{f"p{q}_{name}_ms": float(np.percentile(values, q)) for q in (50, 90, 95, 99)},
    }
