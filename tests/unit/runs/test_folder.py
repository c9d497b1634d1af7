"""Run folders: whole or not there, every request accounted for."""

from __future__ import annotations

import gzip
import json
import stat
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from run_builders import answered, context, counters, journal

from loadkit.core.errors import CannotMeasure, InputError
from loadkit.runs import folder
from loadkit.runs.folder import finish_run


def test_a_run_folder_has_its_files_and_is_private(work: Path, tmp_path: Path) -> None:
    journal(work, 0, [answered("a", 0, 0.0)])
    finish_run(work, tmp_path / "run", context(scheduled=1))
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "run.json",
        "requests.parquet",
        "server_metrics.parquet",
        "sent.jsonl.gz",
        "histograms.json",
    }
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
    assert {path.name for path in tmp_path.iterdir()} == {"work", "run"}


def test_the_returned_dict_is_what_run_json_holds(work: Path, tmp_path: Path) -> None:
    journal(work, 0, [answered("a", 0, 0.0)])
    run = finish_run(work, tmp_path / "run", context(scheduled=1))
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == run
    assert run["schema"] == "loadkit.run/1"
    assert run["status"] == "ok"


def test_every_scheduled_request_has_exactly_one_outcome(work: Path, tmp_path: Path) -> None:
    journal(work, 0, [answered("a", 0, 0.0), answered("a", 1, 1.0, outcome="cut")])
    journal(work, 1, [answered("b", 0, 0.5, outcome="http_error", status=503)])
    counts = finish_run(work, tmp_path / "run", context(scheduled=10))["requests"]
    assert counts == {
        "scheduled": 10,
        "ok": 1,
        "http_error": 1,
        "cut": 1,
        "timeout": 0,
        "malformed": 0,
        "cancelled": 0,
        "not_sent": 7,
    }


def test_run_json_says_how_fresh_the_plan_was(work: Path, tmp_path: Path) -> None:
    journal(work, 0, [answered("a", 0, 0.0)])
    found = {"accidental": 0, "openings_only": True}
    assert finish_run(work, tmp_path / "run", context(freshness=found))["freshness"] == found
    assert finish_run(work, tmp_path / "other", context())["freshness"] is None


def test_more_records_than_planned_still_add_up(work: Path, tmp_path: Path) -> None:
    journal(work, 0, [answered("a", turn, turn) for turn in range(3)])
    counts = finish_run(work, tmp_path / "run", context(scheduled=2))["requests"]
    assert counts["scheduled"] == sum(n for name, n in counts.items() if name != "scheduled") == 3


def test_the_sent_log_has_the_answered_requests_in_order_of_sending(
    work: Path, tmp_path: Path
) -> None:
    journal(
        work,
        0,
        [answered("late", 0, 2.0, reply_token_ids=[5, 6]), answered("x", 0, 1.5, outcome="cut")],
    )
    journal(work, 1, [answered("early", 0, 1.0)])
    finish_run(work, tmp_path / "run", context(scheduled=3))
    lines = gzip.decompress((tmp_path / "run" / "sent.jsonl.gz").read_bytes()).splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["session_id"] for row in rows] == ["early", "late"]
    assert rows[0]["response"] == {
        "content": "yes",
        "finish_reason": "stop",
        "latency_s": pytest.approx(0.3),
    }
    assert rows[1]["response"]["token_ids"] == [5, 6]
    assert rows[1]["timestamp"] == 2.0


def test_the_table_has_a_row_a_record_without_any_text(work: Path, tmp_path: Path) -> None:
    secret = [{"role": "user", "content": "SECRET"}]
    sent = [
        answered("a", 0, 1.0, messages=secret, reply="SECRET", reply_token_ids=[1]),
        answered("b", 0, 0.0, outcome="timeout", cached_tokens=None),
    ]
    journal(work, 0, sent)
    finish_run(work, tmp_path / "run", context(scheduled=2))
    table = pq.read_table(tmp_path / "run" / "requests.parquet")
    assert table["session"].to_pylist() == ["b", "a"]
    assert table["cached_tokens"].to_pylist() == [None, 0]
    assert table["ttft_s"].to_pylist()[1] == pytest.approx(0.1)
    assert "SECRET" not in str(table.to_pylist())


def test_server_counters_before_and_after_are_kept(work: Path, tmp_path: Path) -> None:
    journal(work, 0, [answered("a", 0, 0.0)])
    known = context(scheduled=1, counters_before=counters(1, 2), counters_after=counters(3, 104))
    run = finish_run(work, tmp_path / "run", known)
    rows = pq.read_table(tmp_path / "run" / "server_metrics.parquet").to_pylist()
    assert [(r["moment"], r["counter"], r["tokens"]) for r in rows] == [
        ("before", "queries", 2.0),
        ("before", "hits", 1.0),
        ("after", "queries", 104.0),
        ("after", "hits", 3.0),
    ]
    assert run["reconciliation"]["prometheus"]["cached_tokens"] == 2


def test_a_run_in_which_nothing_was_sent_cannot_be_measured_but_leaves_its_folder(
    work: Path, tmp_path: Path
) -> None:
    journal(work, 0, [answered("a", 0, 0.0, outcome="not_sent", sent_s=None, error="refused")])
    with pytest.raises(CannotMeasure, match="no request was sent") as caught:
        finish_run(work, tmp_path / "run", context(scheduled=2))
    assert caught.value.code == "too_few_samples"
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["status"] == "invalid"
    assert run["requests"]["not_sent"] == 2


def test_a_run_in_which_nothing_was_answered_is_invalid(work: Path, tmp_path: Path) -> None:
    journal(work, 0, [answered("a", 0, 0.0, outcome="timeout", error="late")])
    run = finish_run(work, tmp_path / "run", context(scheduled=1))
    assert (run["status"], run["reasons"][0]["message"]) == ("invalid", "no request was answered")


@pytest.mark.parametrize(("answers", "status"), [(8, "invalid"), (9, "ok")])
def test_a_run_with_more_than_a_tenth_unanswered_is_invalid_and_names_the_error(
    work: Path, tmp_path: Path, answers: int, status: str
) -> None:
    late = {"outcome": "timeout", "status": None, "error": "late"}
    rows: list[dict[str, Any]] = [{} if turn < answers else late for turn in range(10)]
    journal(work, 0, [answered("a", turn, 0.0, **row) for turn, row in enumerate(rows)])
    run = finish_run(work, tmp_path / "run", context(scheduled=10))
    said = "2 of 10 requests were not answered, most often: timeout: late"
    reasons = [{"code": "unanswered", "message": said}] if status == "invalid" else []
    assert (run["status"], run["reasons"]) == (status, reasons)


def test_errors_are_counted_and_what_they_kept_from_being_sent_comes_last(
    work: Path, tmp_path: Path
) -> None:
    busy = {"outcome": "http_error", "status": 429, "error": "full"}
    unsent = {"outcome": "not_sent", "status": None, "error": "ended", "sent_s": None}
    rows = [busy, busy, unsent, unsent, unsent, {"outcome": "cut", "error": "gone"}, {}]
    journal(work, 0, [answered("a", turn, 0.0, **row) for turn, row in enumerate(rows)])
    run = finish_run(work, tmp_path / "run", context(scheduled=7))
    assert run["errors"] == [
        {"outcome": "http_error", "status": 429, "error": "full", "requests": 2},
        {"outcome": "cut", "status": 200, "error": "gone", "requests": 1},
        {"outcome": "not_sent", "status": None, "error": "ended", "requests": 3},
    ]


def test_no_journal_at_all_is_the_same(work: Path, tmp_path: Path) -> None:
    with pytest.raises(CannotMeasure):
        finish_run(work, tmp_path / "run", context(scheduled=3))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["requests"]["not_sent"] == 3


def test_a_torn_journal_is_counted_and_makes_the_run_invalid(work: Path, tmp_path: Path) -> None:
    path = journal(work, 0, [answered("a", 0, 0.0), answered("a", 1, 1.0)])
    path.write_bytes(path.read_bytes()[:-5])
    run = finish_run(work, tmp_path / "run", context(scheduled=2))
    assert run["torn_bytes"] > 0
    assert run["requests"]["ok"] == 1
    assert run["requests"]["not_sent"] == 1
    assert [reason["code"] for reason in run["reasons"]] == ["torn_journal"]


def test_a_missing_worker_makes_the_run_invalid(work: Path, tmp_path: Path) -> None:
    journal(work, 0, [answered("a", 0, 0.0)])
    run = finish_run(work, tmp_path / "run", context(scheduled=2, missing_workers=1, processes=2))
    assert [reason["code"] for reason in run["reasons"]] == ["missing_workers"]


def test_an_open_loop_that_sends_late_is_invalid_timing_and_a_closed_loop_is_not(
    work: Path, tmp_path: Path
) -> None:
    journal(work, 0, [answered("a", 0, 5.0, intended_s=3.0)])
    late = finish_run(work, tmp_path / "open", context(scheduled=1))
    assert [reason["code"] for reason in late["reasons"]] == ["invalid_timing"]
    assert late["schedule_delay_s"]["p99"] == 2.0
    closed = finish_run(work, tmp_path / "closed", context(scheduled=1, loop="closed"))
    assert closed["status"] == "ok"


def test_a_record_found_twice_is_counted_once_and_said(work: Path, tmp_path: Path) -> None:
    journal(work, 0, [answered("a", 0, 0.0)])
    journal(work, 1, [answered("a", 0, 0.0)])
    run = finish_run(work, tmp_path / "run", context(scheduled=1))
    assert (run["requests"]["ok"], run["duplicate_records"]) == (1, 1)


def test_an_existing_folder_is_never_overwritten(work: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").write_text("result")
    with pytest.raises(InputError, match="already exists"):
        finish_run(work, tmp_path / "run", context(scheduled=1))
    assert (tmp_path / "run" / "old").read_text() == "result"


def test_a_failure_while_writing_leaves_nothing_behind(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    journal(work, 0, [answered("a", 0, 0.0)])
    monkeypatch.setattr(folder, "write_server_metrics", full)
    with pytest.raises(OSError, match="No space"):
        finish_run(work, tmp_path / "run", context(scheduled=1))
    assert {path.name for path in tmp_path.iterdir()} == {"work"}


def test_secrets_in_the_url_are_not_kept(work: Path, tmp_path: Path) -> None:
    journal(work, 0, [answered("a", 0, 0.0)])
    secret = context(scheduled=1, url="https://user:CANARY@example.org:8443/v1?key=CANARY")
    run = finish_run(work, tmp_path / "run", secret)
    assert run["endpoint"]["url"] == "https://example.org:8443/v1"
    assert "CANARY" not in (tmp_path / "run" / "run.json").read_text()


def test_without_tokenizer_the_reason_for_no_prediction_is_noted(
    work: Path, tmp_path: Path
) -> None:
    journal(work, 0, [answered("a", 0, 0.0)])
    run = finish_run(work, tmp_path / "run", context(scheduled=1, block_size=16))
    assert run["split"]["source"] is None
    assert run["notes"] == ["no prediction: it needs the served tokenizer and the block size"]


def test_answers_too_many_are_noted(work: Path, tmp_path: Path) -> None:
    journal(work, 0, [answered("a", 0, 0.0)])
    run = finish_run(work, tmp_path / "run", context(scheduled=1, unasked=2))
    assert any(note.startswith("on 2 connection(s) more came than") for note in run["notes"])


def test_a_tokenizer_that_cannot_be_loaded_does_not_lose_the_run(
    work: Path, tmp_path: Path
) -> None:
    journal(work, 0, [answered("a", 0, 0.0)])
    nowhere = context(scheduled=1, block_size=16, tokenizer=str(tmp_path / "no-such-folder"))
    run = finish_run(work, tmp_path / "run", nowhere)
    assert run["requests"]["ok"] == 1
    assert "no such folder" in run["notes"][0]


def test_figures_the_server_did_not_report_are_none(work: Path, tmp_path: Path) -> None:
    silent = {"cached_tokens": None, "prompt_tokens": None, "output_tokens": None}
    journal(work, 0, [answered("a", 0, 0.0, **silent)])
    run = finish_run(work, tmp_path / "run", context(scheduled=1))
    assert run["totals"] == {
        "prompt_tokens": None,
        "output_tokens": None,
        "cached_tokens": None,
        "requests_without_cached_tokens": 1,
        "requests_with_impossible_usage": 0,
    }
