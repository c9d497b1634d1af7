"""`loadkit report` at the command line."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from command import Call
from report_builders import Example


def test_the_command_writes_html_and_markdown_and_judges_by_the_forecast(
    loadkit: Call, example: Example, tmp_path: Path
) -> None:
    (tmp_path / "f.json").write_text(json.dumps(example.expected))
    html, markdown = tmp_path / "r.html", tmp_path / "r.md"
    options = ["--expected", str(tmp_path / "f.json"), "-o", str(html), "--markdown", str(markdown)]
    done = loadkit(
        "report", str(example.staging), "--production", str(example.production), *options
    )
    assert done.code == 0, done.err
    assert "replay_mirage" in html.read_text()
    assert "**FAIL**" in markdown.read_text()
    assert done.out.startswith("Staging shows a")
    assert "FAIL: replay_mirage, wrapped_corpus" in done.out
    assert "organic hit rate" in done.out


def test_json_is_one_object_on_stdout(loadkit: Call, example: Example, tmp_path: Path) -> None:
    done = loadkit("report", str(example.staging), "-o", str(tmp_path / "r.html"), "--json")
    assert json.loads(done.out)["schema"] == "loadkit.report/1"


def test_a_folder_that_is_no_run_is_bad_input_in_one_line(loadkit: Call, tmp_path: Path) -> None:
    done = loadkit("report", str(tmp_path))
    assert done.code == 2
    assert "no run.json here" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_pages_that_quote_prompts_are_their_owners_alone(
    loadkit: Call, example: Example, tmp_path: Path
) -> None:
    html, markdown = tmp_path / "r.html", tmp_path / "r.md"
    options = [str(example.staging), "-o", str(html), "--markdown", str(markdown)]
    assert loadkit("report", *options, "--with-text").code == 0
    assert [stat.S_IMODE(page.stat().st_mode) for page in (html, markdown)] == [0o600] * 2
