"""The report's content, from its model and its pages."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from report_builders import Example, finish, hostile_run

from loadkit.core.errors import InputError
from loadkit.report import build, render, render_markdown, tables, write_report
from loadkit.report.build import EXPECTED, expected_side, headline
from loadkit.report.charts import split_bars
from loadkit.report.model import CAUSES, PARTS, Side, Waits
from loadkit.runs.record import Record


def side(
    label: str, rate: float | None, replay: float | None = 0.0, *, measured: bool = True
) -> Side:
    parts: dict[str, float | None] = dict.fromkeys(PARTS, 0.0) | {"replay_cross_session": replay}
    return Side(label, measured, "", rate, None, None, parts, None)


def complete(example: Example) -> Any:
    return build(
        example.staging, expected=example.expected, production=example.production, gate=example.gate
    )


VALID = {"status": "ok", "requests": {"scheduled": 9, "ok": 9}}


def test_the_headline_says_staging_replays_and_production_in_one_sentence() -> None:
    sides = [side("Staging", 0.924, 0.88), side(EXPECTED, 0.41, measured=False)]
    assert headline(sides, VALID) == (
        "Staging shows a 92% hit rate, 88 points of it replays; production should expect 41%"
    )


def test_the_miss_is_told_by_cause_and_named_where_caching_is_off() -> None:
    shares = {"miss_compulsory": 0.36, "miss_capacity": 0.0, "miss_unexplained": 0.64}
    parts: dict[str, float | None] = dict.fromkeys(PARTS, 0.0) | {"miss": 1.0}
    off, unknown = (
        Side("Staging", True, "", 0.0, None, None, parts, None, misses=shares, caching_off=is_off)
        for is_off in (True, False)
    )
    rows = {row.name: row.cells for row in tables.split_table([off]).rows}
    assert rows["miss, never seen"] == ("36.0%",)
    assert rows["miss, caching is off"] == ("64.0%",)
    assert "miss, evicted" not in rows
    drawn = str(split_bars([off], 950))
    assert "miss, caching is off: 64.0% of prompt tokens" in drawn
    assert "evicted" not in drawn
    rows = {row.name: row.cells for row in tables.split_table([unknown]).rows}
    assert rows["miss, unexplained"] == ("64.0%",)


def test_the_headline_claims_nothing_that_was_not_measured() -> None:
    assert headline([side("Staging", 0.4)], VALID) == "Staging shows a 40% hit rate"
    unknown = [side("Staging", None), side(EXPECTED, 0.41, measured=False)]
    assert "no hit rate" in headline(unknown, VALID)


def test_the_headline_compares_with_no_forecast_that_the_gate_refused() -> None:
    sides = [side("Staging", 0.4), side(EXPECTED, 0.41, measured=False)]
    refused = {"verdict": "INCONCLUSIVE", "reasons": [{"code": "forecast_refused"}]}
    assert headline(sides, VALID, refused) == "Staging shows a 40% hit rate"


def test_the_headline_does_not_lean_on_an_inconclusive_forecast() -> None:
    forecast = {"status": "inconclusive", "hit_rate": {"estimate": 0.6}, "log": {"requests": 9}}
    expected = expected_side(forecast)
    assert expected.basis == "inconclusive forecast from a log of 9 requests"
    sides = [side("Staging", 0.4), expected]
    assert headline(sides, VALID) == "Staging shows a 40% hit rate"


def test_the_headline_of_a_run_answered_in_part_says_so_first() -> None:
    cut = {"status": "invalid", "requests": {"scheduled": 13, "ok": 1}}
    sides = [side("Staging", 0.4), side(EXPECTED, 0.41, measured=False)]
    assert headline(sides, cut) == (
        "This run is not valid, 12 of 13 requests were not answered;"
        " do not rely on it: Staging shows a 40% hit rate"
    )


def test_the_shown_shares_are_those_of_the_runs_and_sum_to_one(example: Example) -> None:
    report = complete(example)
    run = json.loads((example.staging / "run.json").read_text())
    assert report.sides[0].hit_rate == run["split"]["hit_rate"]
    assert report.sides[2].hit_rate == example.expected["hit_rate"]["estimate"]
    for one in report.sides:
        assert sum(one.parts.values()) == pytest.approx(1)


def test_the_page_shows_verdict_figures_and_every_section(example: Example) -> None:
    page = render(complete(example))
    assert '<div class="badge">FAIL</div>' in page
    assert "replay_mirage" in page
    for title in (
        "Where the prompt tokens came from",
        "Hit rate over cache size",
        "Time to first token by cause",
        "Do three counts agree?",
        "How the runs went",
        "Method and setting",
    ):
        assert f"<h2>{title}</h2>" in page


def test_bars_are_as_wide_as_their_shares(example: Example) -> None:
    report = complete(example)
    page = render(report)
    widths = [
        float(w) for w in re.findall(r'width="([\d.]+)" height="34" class="fill-replay_cross', page)
    ]
    assert widths[0] == pytest.approx(950 * report.sides[0].parts["replay_cross_session"], abs=0.01)
    assert widths[-1] == pytest.approx(
        332 * report.sides[0].parts["replay_cross_session"], abs=0.01
    )


def test_time_curves_end_at_the_slowest_request_and_at_one(example: Example) -> None:
    waits = complete(example).waits[1]
    for cause, line in waits.ecdf.items():
        if line:
            assert line[-1] == (waits.figures[cause]["max"], 1.0)


def test_the_page_forbids_scripts_and_network_and_its_style_has_the_allowed_hash(
    example: Example,
) -> None:
    page = render(complete(example))
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy.startswith("default-src 'none';")
    [style] = re.findall(r"<style>(.*?)</style>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert not re.search(r"<script|<link|<img|\bsrc=|@import|https?://(?!127)", page)


@pytest.mark.parametrize(("replay", "is_alarm"), [(0.0004, False), (0.001, True), (None, False)])
def test_no_alarm_is_given_for_replays_that_are_none(
    example: Example, replay: float | None, is_alarm: bool
) -> None:
    report = complete(example)
    calm = msgspec.structs.replace(report, sides=(side("Staging", 0.4, replay),))
    assert ('<div class="replay">' in render(calm)) is is_alarm


def test_a_p99_of_a_handful_is_not_shown() -> None:
    some = {"n": 20, "p50": 0.1, "p90": 0.2, "p99": 0.3}
    few = {**some, "n": 19}
    waits = Waits("run", dict.fromkeys(CAUSES, few) | {"all": some}, {})
    rows = {row.name: row.cells for row in tables.wait_table(waits).rows}
    assert rows["miss"] == ("19", "100 ms", "200 ms", "–")
    assert rows["all"] == ("20", "100 ms", "200 ms", "300 ms")


def test_a_run_alone_makes_a_report_too(example: Example) -> None:
    page = render(build(example.staging))
    assert "Staging shows a" in page
    assert 'class="badge"' not in page


def test_hostile_names_are_text_in_the_page(example: Example, tmp_path: Path) -> None:
    page = render(_hostile(example, tmp_path))
    assert "<script" not in page
    assert "onload='x'" not in page
    assert "&lt;script&gt;" in page
    assert page.count("</style>") == 1
    assert "{{7*7}}" in page
    assert "\u202e" not in page
    assert "\x1b" not in page


def test_hostile_names_are_text_in_markdown(example: Example, tmp_path: Path) -> None:
    text = render_markdown(_hostile(example, tmp_path))
    assert "<script" not in text
    assert "[a](javascript" not in text
    assert "\x1b" not in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.count("|") - line.count("\\|") >= 3 for line in table)


def _hostile(example: Example, folder: Path) -> Any:
    gate = hostile_run(folder / "run", example.tokenizer)
    return build(folder / "run", gate=gate)


def test_what_is_not_known_is_said_and_not_zero(tmp_path: Path) -> None:
    silent = [
        Record(
            session="a", turn=0, name="n", worker=0, outcome="ok", intended_s=0.0, sent_s=0.0,
            first_token_s=0.1, completed_s=0.2, messages=[{"role": "user", "content": "word1"}],
        )
    ]  # fmt: skip
    finish(tmp_path / "run", silent)
    report = build(tmp_path / "run")
    page = render(report)
    assert report.sides[0].hit_rate is None
    assert "no split by cause is known" in page
    assert "not known" in page
    assert "hit rate 0.0%" not in page


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no run.json here"),
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"schema": "loadkit.run/2"}', "this loadkit reads loadkit.run/1"),
        ('{"schema": "loadkit.run/1", "seed": NaN}', "NaN is no number"),
        ('{"schema": "loadkit.run/1", "seed": 1e400}', "too large"),
        ('{"schema": "loadkit.run/1"}', "lacks status: an older loadkit"),
    ],
)
def test_a_folder_that_is_no_run_is_refused(
    tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=message):
        build(tmp_path)


def test_a_rate_above_1_is_no_figure_to_show(example: Example) -> None:
    path = example.staging / "run.json"
    run = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(run | {"split": run["split"] | {"hit_rate": 1.2}}), "utf-8")
    with pytest.raises(InputError, match=r"run\.json: .*<= 1.0.*hit_rate"):
        build(example.staging)
    path.write_text(json.dumps(run), "utf-8")
    wrong = {"schema": "loadkit.forecast/1", "status": "ok", "hit_rate": {"estimate": 41}}
    with pytest.raises(InputError, match=r"--expected: .*estimate"):
        build(example.staging, expected=wrong)


def test_a_forecast_or_verdict_of_another_kind_is_refused(example: Example) -> None:
    with pytest.raises(InputError, match="--expected"):
        build(example.staging, expected={"schema": "loadkit.analysis/1"})
    with pytest.raises(InputError, match="--gate"):
        build(example.staging, gate={})


def test_markdown_has_the_headline_the_verdict_and_tables(example: Example) -> None:
    text = render_markdown(complete(example))
    assert text.startswith("## Staging shows a ")
    assert "**FAIL**" in text
    assert "| hit rate | " in text
    assert text.endswith("|\n")


def test_the_file_is_whole_or_not_there(example: Example, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", staging=example.staging)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(InputError, match="cannot be written"):
        write_report(tmp_path / "nowhere" / "report.html", staging=example.staging)


def test_the_same_runs_give_the_same_bytes(example: Example) -> None:
    assert render(complete(example)) == render(complete(example))
