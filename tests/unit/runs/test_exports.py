"""A run folder in other tools' formats, against figures worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from run_builders import answered, context, journal

from loadkit.core.errors import InputError
from loadkit.runs.exports import export
from loadkit.runs.exports.measured import read_measured
from loadkit.runs.exports.otlp import as_otlp, post
from loadkit.runs.folder import finish_run
from loadkit.runs.histograms import histogram


@pytest.fixture
def folder(work: Path, tmp_path: Path) -> Path:
    """Four answers of 100 prompt and 3 output tokens, TTFT 100 ms, 300 ms in all, one a second; one
    more that failed, and one that only warmed up."""
    journal(
        work,
        0,
        [
            *(answered("a", turn, float(turn)) for turn in range(4)),
            answered("b", 0, 1.0, outcome="cut", error="gone"),
            answered("w", 0, 0.0, phase="warmup"),
        ],
    )
    profile = {"name": "test", "arrivals": {"rate_per_s": 1.0}}
    finish_run(work, tmp_path / "run", context(scheduled=5, profile=profile))
    return tmp_path / "run"


def test_vllms_shape(folder: Path) -> None:
    data = json.loads(export(folder, "vllm").read_text())
    assert (data["completed"], data["failed"], data["num_prompts"]) == (4, 1, 5)
    assert (data["total_input_tokens"], data["total_output_tokens"]) == (400, 12)
    assert data["duration"] == pytest.approx(3.3)
    assert data["request_throughput"] == pytest.approx(4 / 3.3)
    assert data["total_token_throughput"] == pytest.approx(412 / 3.3)
    assert data["median_ttft_ms"] == pytest.approx(100)
    assert data["p99_e2el_ms"] == pytest.approx(300)
    assert data["mean_tpot_ms"] == pytest.approx(100)
    assert data["mean_itl_ms"] == pytest.approx(200)
    assert data["request_rate"] == 1.0
    assert "request_goodput" not in data
    assert "tokenizer_id" not in data


def test_aiperfs_shape(folder: Path) -> None:
    data = json.loads(export(folder, "aiperf").read_text())
    assert data["request_count"] == {"unit": "requests", "avg": 4.0}
    assert data["time_to_first_token"]["unit"] == "ms"
    assert data["time_to_first_token"]["p99"] == pytest.approx(100)
    assert data["request_latency"]["max"] == pytest.approx(300)
    assert data["output_sequence_length"]["avg"] == 3.0
    assert data["error_summary"] == [
        {"error_details": {"code": 200, "type": "cut", "message": "gone"}, "count": 1}
    ]
    assert data["was_cancelled"] is False


def test_opentelemetry_histograms_count_every_answer_once(folder: Path) -> None:
    resource = as_otlp(read_measured(folder))["resourceMetrics"][0]
    metrics = {metric["name"]: metric for metric in resource["scopeMetrics"][0]["metrics"]}
    (point,) = metrics["gen_ai.server.time_to_first_token"]["histogram"]["dataPoints"]
    assert (point["count"], point["sum"]) == ("4", pytest.approx(0.4))
    assert len(point["bucketCounts"]) == len(point["explicitBounds"]) + 1
    assert sum(map(int, point["bucketCounts"])) == 4
    outcomes = {
        point["attributes"][0]["value"]["stringValue"]: point["asInt"]
        for point in metrics["loadkit.requests"]["sum"]["dataPoints"]
    }
    assert (outcomes["ok"], outcomes["cut"]) == ("4", "1")


@contextmanager
def collector(status: int) -> Iterator[tuple[str, list[Any]]]:
    seen: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            seen.append((self.path, json.loads(body)))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", seen
        finally:
            server.shutdown()
            thread.join()


def test_a_collector_gets_one_request(folder: Path) -> None:
    with collector(200) as (url, seen):
        post(read_measured(folder), url)
    assert [path for path, _ in seen] == ["/v1/metrics"]
    assert seen[0][1]["resourceMetrics"]


def test_a_collector_that_refuses_or_is_not_there_is_an_input_error(folder: Path) -> None:
    with collector(400) as (url, _), pytest.raises(InputError, match="answered 400"):
        post(read_measured(folder), url)
    with pytest.raises(InputError, match="no answer"):
        post(read_measured(folder), url)


def test_histograms_of_two_runs_add_up(folder: Path) -> None:
    data = json.loads((folder / "histograms.json").read_text())
    once = histogram()
    once.decode_and_add(data["ttft_s"].encode())
    assert once.get_total_count() == 4
    assert once.get_value_at_percentile(50) == pytest.approx(100_000, rel=1e-3)
    once.decode_and_add(data["ttft_s"].encode())
    assert once.get_total_count() == 8
    gaps = histogram()
    gaps.decode_and_add(data["itl_s"].encode())
    assert gaps.get_total_count() == 4


def test_a_late_request_that_got_no_answer_is_in_the_histogram_of_delays(
    work: Path, tmp_path: Path
) -> None:
    """As in run.json: who was sent late waited late, whatever came of it."""
    late = answered("b", 0, 1.0, sent_s=3.0, outcome="cut", completed_s=None, connect_s=0.01)
    journal(work, 0, [answered("a", 0, 0.0), late])
    run = finish_run(work, tmp_path / "late", context(scheduled=2))
    data = json.loads((tmp_path / "late" / "histograms.json").read_text())
    delays, first = histogram(), histogram()
    delays.decode_and_add(data["schedule_delay_s"].encode())
    first.decode_and_add(data["ttft_s"].encode())
    assert delays.get_total_count() == run["schedule_delay_s"]["n"] == 2
    assert delays.get_max_value() == pytest.approx(2e6, rel=1e-3)
    assert first.get_total_count() == run["latency"]["ttft_s"]["n"] == 1
