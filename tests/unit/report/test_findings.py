"""What the report finds beside the rates, on rows that can be counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_builders import BLOCK_SIZE, HOSTILE, Example, finish, make_run, production_records

from loadkit.gate.policy import Policy
from loadkit.gate.requests import Requests, read_requests
from loadkit.profiles import Slo
from loadkit.report import build, render, render_markdown
from loadkit.report.findings import broken_table, objectives_table
from loadkit.report.model import Facts
from loadkit.report.objectives import objectives
from loadkit.report.sent import Sent, sent
from loadkit.report.timeline import timeline
from loadkit.runs.record import Record
from loadkit.runs.tables import REQUESTS_SCHEMA


def requests(base: Path, rows: list[dict[str, Any]]) -> Requests:
    usual = {
        "turn": 0,
        "outcome": "ok",
        "prompt_tokens": 100,
        "ttft_s": 0.1,
        "replay": None,
        "main_cause": "miss",
    }
    zero = dict.fromkeys(
        ("replay_same_session", "replay_cross_session", "continuation", "shared"), 0
    )
    base.mkdir(exist_ok=True)
    table = pa.Table.from_pylist([usual | zero | row for row in rows], schema=REQUESTS_SCHEMA)
    pq.write_table(table, base / "requests.parquet")
    return read_requests(base)


def test_time_windows_have_their_own_rate_and_the_rate_so_far(tmp_path: Path) -> None:
    # two windows of two requests: nothing hit, then 80 of 100 tokens in each
    rows = [
        {"session": "a", "sent_s": at, "continuation": hit, "cached_tokens": hit}
        for at, hit in ((0.0, 0), (1.0, 0), (9.0, 80), (10.0, 80))
    ]
    first, second = timeline("Staging", requests(tmp_path, rows)).windows
    assert (first.hit_rate, first.so_far, first.requests) == (0, 0, 2)
    assert (second.hit_rate, second.so_far) == (pytest.approx(0.8), pytest.approx(0.4))
    assert second.parts["continuation"] == pytest.approx(0.8)


def test_objectives_are_counted_limit_by_limit_and_together(tmp_path: Path) -> None:
    rows = [
        {"session": f"s{n}", "ttft_s": 0.1 if n else 0.9, "e2e_s": 1.0 if n > 1 else 9.0}
        for n in range(20)
    ]
    found = objectives(
        "Staging", requests(tmp_path, rows), Policy(slo=Slo(ttft_s=0.5, e2e_s=2.0, share=0.95))
    )
    assert found is not None
    assert [row.met for row in found.rows] == [19, 18, 18]
    table = objectives_table(found)
    assert [row.name for row in table.rows] == ["TTFT ≤ 500 ms", "E2E ≤ 2,000 ms", "all of them"]
    assert table.rows[-1].cells[-1] == "NO"


def rewriting(sessions: int) -> list[Record]:
    """Sessions of two turns whose second turn rewrites the first message's beginning."""
    records = []
    for record in production_records(sessions, 5):
        if record.turn == 0:
            again = [{**m, "content": "word9 " + m["content"]} for m in record.messages]
            more = [*again, {"role": "user", "content": "word3 " * 20}]
            records += [record, msgspec.structs.replace(record, turn=1, messages=more,
                                                        intended_s=record.intended_s + 9,
                                                        sent_s=(record.sent_s or 0) + 9,
                                                        completed_s=(record.sent_s or 0) + 10)]  # fmt: skip
    return records


def test_what_broke_append_only_is_named_with_its_cost(example: Example, tmp_path: Path) -> None:
    make_run(tmp_path / "run", rewriting(12), tokenizer=example.tokenizer, capacity_blocks=900)
    report = build(tmp_path / "run")
    [audit] = report.sent
    table = broken_table(audit, 0.002)
    assert table is not None
    pairs, lost, _, wait = table.rows[0].cells
    assert pairs == "12"
    cost = 2.0 * int(lost.replace(",", "")) / 12
    assert wait == (f"{cost:,.0f} ms" if cost >= 10 else f"{cost:.1f} ms")
    assert "12 of 12 pairs of turns" in render(report)


def test_prompts_are_quoted_only_when_asked_and_then_as_text(
    example: Example, tmp_path: Path
) -> None:
    loud = [{"role": "system", "content": HOSTILE + " word1" * 40}]
    records = [
        msgspec.structs.replace(record, messages=[*loud, *record.messages])
        for record in production_records(12, 3)
    ]
    make_run(tmp_path / "run", records, tokenizer=example.tokenizer, capacity_blocks=900)
    quiet, loud_report = build(tmp_path / "run"), build(tmp_path / "run", show_text=True)
    assert "alert(1)" not in render(quiet) + render_markdown(quiet) + str(quiet.to_dict())
    page = render(loud_report)
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page


def test_without_the_tokenizer_the_sections_say_why(example: Example, tmp_path: Path) -> None:
    run = {"tokenizer": {"name": str(tmp_path / "gone")}, "block_size": BLOCK_SIZE}
    found = sent("Staging", example.staging, run, show_text=False)
    assert found.append_only is None
    assert "no such folder" in str(found.why_not)
    missing = sent("Staging", tmp_path, run, show_text=False)
    assert missing == Sent("Staging", None, None, "the run folder has no sent.jsonl.gz")


def test_a_run_without_any_answer_has_a_report(tmp_path: Path) -> None:
    failed = [
        Record(session=f"s{n}", turn=0, name="n", worker=0, outcome="http_error", status=500,
               error="<b>no</b>", intended_s=float(n), sent_s=float(n), completed_s=n + 0.1)
        for n in range(3)
    ]  # fmt: skip
    finish(tmp_path / "run", failed)
    page = render(build(tmp_path / "run"))
    assert "<h1>Nothing was measured, none of 3 requests was answered.</h1>" in page
    assert "3 requests ended with http error 500" in page
    assert "no</b>" not in page
    assert "<b>not known</b>" not in page


def test_stages_goodput_and_stalls_are_shown_where_a_run_has_them_and_only_there(
    example: Example,
) -> None:
    plain = build(example.production)
    assert "goodput" not in render(plain)
    stage = {"start_s": 0.0, "end_s": 60.0, "rate_per_s": 1.5, "requests": 90, "ok": 88}
    met = {"goodput_per_s": 1.25, "goodput_share": 0.9}
    run = plain.facts[0].run | {
        "stages": [stage | met, "no stage"][:1],
        "goodput": met | {"knee_per_s": 1.5},
        "loop_stalls": {"count": 30, "longest_s": 0.08, "p99_s": 0.004},
        "client": {"workers": [{"cpu_share": 0.4}, {"cpu_share": 0.7}, {"cpu_share": None}]},
    }
    page = render(msgspec.structs.replace(plain, facts=(Facts("Staging", run),)))
    for words in (
        "goodput 1.25 requests a second; the knee is at 1.5 session starts a second",
        "0 – 60 s", "<td>90.0%</td>", "<td>30</td>", "<td>80 ms</td>", "<td>70.0%</td>",
    ):  # fmt: skip
        assert words in page


@pytest.mark.parametrize(
    "odd", ["x", 3, [1], {"count": "x"}, {"workers": "x"}, [{"rate_per_s": []}]]
)
def test_newer_keys_that_do_not_fit_are_left_out(example: Example, odd: Any) -> None:
    plain = build(example.production)
    keys = ("stages", "goodput", "loop_stalls", "client")
    run = plain.facts[0].run | dict.fromkeys(keys, odd)
    assert render(msgspec.structs.replace(plain, facts=(Facts("Staging", run),)))
