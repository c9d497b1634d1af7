"""JUnit, Markdown and annotations: right, and deaf to hostile text."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import typer
from gate_builders import HOSTILE, expected, folder, mirage, run

from loadkit.cli.gate import gate as command
from loadkit.gate import decide
from loadkit.gate.annotations import to_annotations
from loadkit.gate.junit import to_junit
from loadkit.gate.markdown import to_markdown
from loadkit.gate.verdict import CODES

LATE = {"code": "invalid_timing", "message": HOSTILE}


def hostile() -> Any:
    return decide(
        run(status="invalid", reasons=[LATE]), expected(needs=HOSTILE, status="inconclusive")
    )


def test_junit_counts_failures_errors_and_skipped_checks() -> None:
    suite = ET.fromstring(to_junit(decide(mirage() | {"wraps": 2}, expected())))
    assert suite.attrib == suite.attrib | {"tests": str(len(CODES)), "failures": "2", "errors": "0"}
    failed = [case.find("failure") for case in suite.iter("testcase")]
    assert [f.get("type") for f in failed if f is not None] == ["replay_mirage", "wrapped_corpus"]
    unsure = ET.fromstring(to_junit(decide(run(split__sessions=3), expected())))
    assert (unsure.get("failures"), unsure.get("errors")) == ("0", "1")
    passed = ET.fromstring(to_junit(decide(run(), expected())))
    assert (passed.get("failures"), passed.get("errors")) == ("0", "0")


def test_junit_of_hostile_text_is_one_document_with_that_text() -> None:
    text = to_junit(hostile(), HOSTILE)
    suite = ET.fromstring(text)
    assert {element.tag for element in suite.iter()} == {
        "testsuites", "testsuite", "testcase", "error", "skipped"
    }  # fmt: skip
    assert "<script>alert(1)</script>" in str(suite.get("name"))
    assert not re.search("[\x00\x1b\u202e]", text)


def test_markdown_has_figures_reasons_remedies_and_checks() -> None:
    text = to_markdown(decide(mirage(), expected()), "staging")
    assert text.startswith("## loadkit gate: FAIL (staging)\n")
    assert "| hit rate | 92.0% |" in text
    assert "> Send what users send" in text
    assert text.count("\n| ") == 1 + 3 + 1 + len(CODES)  # two heads, three rates, the checks


def test_markdown_of_hostile_text_is_text() -> None:
    text = to_markdown(hostile(), HOSTILE)
    assert "<script" not in text
    assert not re.search(r"(?<!\\)\[a", text)
    assert "\\@all" in text
    assert not re.search("[\x00\x1b\u202e]", text)
    assert not [line for line in text.splitlines() if line.startswith("::")]
    cells = [line for line in text.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in cells} == {4, 5}


def test_an_annotation_is_one_line_a_reason_and_hostile_text_cannot_add_one() -> None:
    lines = to_annotations(hostile())
    assert [line.split(" ")[0] for line in lines] == ["::warning", "::warning"]
    for line in lines:
        assert "\n" not in line
        assert "\r" not in line
        assert line.count("::") == 2
        assert "##[" not in line
    [failed, _] = to_annotations(decide(mirage() | {"wraps": 1}, expected()))
    assert failed.startswith("::error title=loadkit gate%3A replay_mirage::staging measured")
    assert "92.0%25" in failed


def test_on_github_the_summary_is_added_to_and_annotations_go_to_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (tmp_path / "f.json").write_text(json.dumps(expected()))
    with pytest.raises(typer.Exit) as ended:
        command(folder(tmp_path / "run", mirage()), tmp_path / "f.json", json=True)
    assert ended.value.exit_code == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["verdict"] == "FAIL"
    assert err.startswith("::error title=")
    assert summary.read_text().startswith("before\n## loadkit gate: FAIL (run)")


def test_the_terminal_says_nothing_to_the_logs_reader(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    (tmp_path / "f.json").write_text(json.dumps(expected()))
    bad = folder(tmp_path / "run", run(status="invalid", reasons=[LATE]))
    with pytest.raises(typer.Exit) as ended:
        command(bad, tmp_path / "f.json", junit=tmp_path / "j.xml", markdown=tmp_path / "g.md")
    out, _ = capsys.readouterr()
    assert ended.value.exit_code == 3
    assert not re.search("::error|::set-env|##\\[|[\x00\x1b\u202e]", out)
    assert {path.name for path in tmp_path.iterdir()} >= {"j.xml", "g.md"}
