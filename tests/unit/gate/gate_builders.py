"""A run and a forecast that pass, to change one thing at a time."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from loadkit.runs.plausible import NOT_READ
from loadkit.runs.tables import REQUESTS_SCHEMA

RUN: dict[str, Any] = {
    "schema": "loadkit.run/1",
    "status": "ok",
    "reasons": [],
    "endpoint": {"url": "http://127.0.0.1:1", "model": "m", "tokenizer_fingerprint": None},
    "tokenizer": {"name": "t", "fingerprint": "aa"},
    "block_size": 16,
    "capacity_blocks": 2000,
    "requests": {"scheduled": 60, "ok": 60, "not_sent": 0},
    "started_unix_s": 2.0,
    "left": 0,
    "loop": "closed",
    "kind": "conversation",
    "schedule_delay_s": {"p99": None},
    "wraps": 0,
    "mutations": 0,
    "split": {
        "source": "server",
        "requests": 60,
        "sessions": 20,
        "prompt_tokens": 10_000,
        "hit_rate": 0.40,
        "hit_rate_half_width": 0.05,
        "replay_same_session_rate": 0.0,
        "replay_cross_session_rate": 0.02,
        "continuation_rate": 0.20,
        "shared_rate": 0.18,
        "organic_hit_rate": 0.39,
    },
    "reconciliation": {
        "usage": {"cached_tokens": 4000, "prompt_tokens": 10_000},
        "usage_all_phases": {"cached_tokens": 4000, "prompt_tokens": 10_000},
        "prometheus": {"cached_tokens": None, "prompt_tokens": None},
        "prediction": {"cached_tokens": 4000, "prompt_tokens": 10_000},
        "prediction_all_phases": {"cached_tokens": 4000, "prompt_tokens": 10_000},
        "prediction_low_tokens": None,
        "prediction_high_tokens": None,
        "prediction_infinite_tokens": 4100,
        "prediction_capacity_blocks": 2000,
        "prediction_overlap_tokens": None,
        "unanswered_requests": 0,
        "impossible": {
            "judged": 60,
            "beyond": 0,
            "excess_tokens": 0,
            "off_grid": 0,
            "unreadable": 0,
            "first": [],
        },
        "counters": msgspec.to_builtins(NOT_READ),
        "says": "witnesses agree",
    },
}
EXPECTED: dict[str, Any] = {
    "schema": "loadkit.forecast/1",
    "status": "ok",
    "hit_rate": {"estimate": 0.41, "low": 0.41, "high": 0.41, "confidence": None},
    "split": {
        "replay_same_session": 0.0,
        "replay_cross_session": 0.03,
        "continuation": 0.2,
        "shared": 0.18,
        "miss": 0.59,
    },
    "organic_hit_rate": {"estimate": 0.39},
    "scenario": {
        "traffic": 1.0,
        "block_size": 16,
        "capacity_blocks": 2000,
        "replicas": 1,
        "routing": "pooled",
        "ttl_s": None,
        "horizon_s": None,
    },
    "log": {
        "requests": 10**6,
        "sessions": 10**5,
        "prompt_tokens": 10**9,
        "tokenizer_fingerprint": "aa",
        "model": None,
    },
    "curve": [],
    "needs": None,
}


def changed(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy with values replaced; `a__b=1` replaces base["a"]["b"]."""
    data = copy.deepcopy(base)
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = data
        for name in parents:
            node = node[name]
        node[last] = value
    return data


def run(**changes: Any) -> dict[str, Any]:
    return changed(RUN, **changes)


# No hit rate, and so no split: what the server left unsaid, or a forecast that was refused.
UNSPLIT: dict[str, Any] = dict.fromkeys(RUN["split"]) | {"requests": 0, "sessions": 0}
REFUSED: dict[str, Any] = {"hit_rate": {}, "split": dict.fromkeys(EXPECTED["split"])}


def expected(**changes: Any) -> dict[str, Any]:
    """Of another rate than usual: production shares as much more or less. log: adds to what is
    there."""
    log = EXPECTED["log"] | changes.pop("log", {})
    data = changed(EXPECTED, **changes, log=log)
    estimate, split = data["hit_rate"].get("estimate"), data["split"]
    if isinstance(estimate, float) and not any(name.startswith("split") for name in changes):
        rest = estimate
        for name in ("replay_cross_session", "continuation"):
            split[name] = min(rest, split[name])
            rest -= split[name]
        split["shared"] = rest
    return data


def mirage() -> dict[str, Any]:
    """92% measured, 88 points of it replays of other sessions' prompts."""
    return run(
        split__hit_rate=0.92,
        split__replay_cross_session_rate=0.88,
        split__continuation_rate=0.0,
        split__shared_rate=0.04,
        reconciliation__usage__cached_tokens=9200,
        reconciliation__prediction__cached_tokens=9200,
        reconciliation__prediction_infinite_tokens=9200,
    )


HOSTILE = (
    "<script>alert(1)</script>\" onload='x' | [a](javascript:b) `c` @all \u202e\x1b[31m\x00 ]]>"
    "\n::error::owned %0A##[error]owned\r\n::set-env name=A::b"
)


def rows(data: dict[str, Any], ttft_s: float = 0.2, **changes: Any) -> list[dict[str, Any]]:
    """Requests that add up to the split of `data`: as many in every session, all alike, 100 tokens
    each. `changes` replace columns of every row."""
    split, ok = data["split"], data["requests"]["ok"]
    sessions = max(1, split.get("sessions") or 1)
    shares = {
        name: 0 if split.get(f"{name}_rate") is None else round(100 * split[f"{name}_rate"])
        for name in ("replay_same_session", "replay_cross_session", "continuation", "shared")
    }
    known = split.get("hit_rate") is not None
    return [
        {
            "session": f"s{number % sessions}",
            "turn": number // sessions,
            "outcome": "ok",
            "prompt_tokens": 100,
            "cached_tokens": sum(shares.values()) if known else None,
            "ttft_s": ttft_s,
            "e2e_s": 10 * ttft_s,
            "sent_s": float(number),
            **(shares if known else {}),
            **changes,
        }
        for number in range(ok)
    ]


def folder(at: Path, data: dict[str, Any], requests: list[dict[str, Any]] | None = None) -> Path:
    """A run folder of run.json and requests.parquet."""
    at.mkdir(parents=True)
    (at / "run.json").write_text(json.dumps(data), "utf-8")
    found = rows(data) if requests is None else requests
    pq.write_table(pa.Table.from_pylist(found, schema=REQUESTS_SCHEMA), at / "requests.parquet")
    return at
