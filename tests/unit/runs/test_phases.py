"""Priming and warm-up are sent and kept, and in no figure but the server's own counters."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow.parquet as pq
from run_builders import answered, context, counters, journal

from loadkit.runs.folder import finish_run


def run_of(work: Path, out: Path) -> dict:  # type: ignore[type-arg]
    """Two warm-up requests (one cut), three measured ones; 100 prompt tokens each, 32 cached."""
    warm = {"phase": "warmup", "cached_tokens": 50}
    journal(
        work,
        0,
        [
            answered("w", 0, 0.0, **warm),
            answered("w", 1, 1.0, **warm | {"outcome": "cut"}),
            *(answered("m", turn, 2.0 + turn, cached_tokens=32) for turn in range(3)),
        ],
    )
    known = context(
        scheduled=4,
        scheduled_phases={"warmup": 2, "priming": 1},
        counters_before=counters(0, 0),
        counters_after=counters(50 + 96, 400),
    )
    return finish_run(work, out, known)


def test_only_measured_requests_are_in_the_figures(work: Path, tmp_path: Path) -> None:
    run = run_of(work, tmp_path / "run")
    assert (run["requests"]["scheduled"], run["requests"]["ok"]) == (4, 3)
    assert run["requests"]["not_sent"] == 1
    assert run["totals"]["prompt_tokens"] == 300
    assert run["totals"]["cached_tokens"] == 96
    assert run["latency"]["ttft_s"]["n"] == 3
    assert run["sessions"] == 1


def test_other_phases_have_their_own_counts_and_rows(work: Path, tmp_path: Path) -> None:
    run = run_of(work, tmp_path / "run")
    warm, priming = run["phases"]["warmup"], run["phases"]["priming"]
    assert (warm["scheduled"], warm["ok"], warm["cut"]) == (2, 1, 1)
    assert (priming["scheduled"], priming["not_sent"]) == (1, 1)
    table = pq.read_table(tmp_path / "run" / "requests.parquet")
    assert table["phase"].to_pylist() == ["warmup"] * 2 + ["measured"] * 3
    sent = gzip.decompress((tmp_path / "run" / "sent.jsonl.gz").read_bytes()).splitlines()
    assert [json.loads(row).get("phase") for row in sent] == ["warmup", None, None, None]


def test_the_servers_counters_are_compared_with_the_usage_of_all_phases(
    work: Path, tmp_path: Path
) -> None:
    found = run_of(work, tmp_path / "run")["reconciliation"]
    assert found["usage"]["cached_tokens"] == 96
    assert found["usage_all_phases"] == {"cached_tokens": 146, "prompt_tokens": 400}
    assert found["usage_vs_prometheus"]["unexplained_cached_tokens"] == 0


def test_users_who_left_are_counted_apart_and_do_not_make_a_run_invalid(
    work: Path, tmp_path: Path
) -> None:
    left = {"outcome": "cancelled", "error": "the user left"}
    rows = [left, left, {"outcome": "cancelled", "error": "stopped"}, *[{}] * 7]
    journal(work, 0, [answered("a", turn, 0.0, **row) for turn, row in enumerate(rows)])
    run = finish_run(work, tmp_path / "run", context(scheduled=10))
    assert (run["left"], run["requests"]["cancelled"], run["status"]) == (2, 3, "ok")
    assert run["errors"] == [
        {"outcome": "cancelled", "status": 200, "error": "stopped", "requests": 1}
    ]


def test_attempts_after_the_first_are_retries(work: Path, tmp_path: Path) -> None:
    journal(work, 0, [answered("a", 0, 0.0, attempts=3), answered("a", 1, 1.0)])
    run = finish_run(work, tmp_path / "run", context(scheduled=2))
    assert run["retries"] == 2
    assert run["schedule_delay_s"]["n"] == 1  # the first was asked to wait
