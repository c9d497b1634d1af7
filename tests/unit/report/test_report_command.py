"""`loadkit report` at the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from report_builders import Example


def report(*arguments: str) -> Any:
    command = [sys.executable, "-c", "from loadkit.cli import main; main()", "report", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_command_writes_html_and_markdown_and_judges_by_the_forecast(
    example: Example, tmp_path: Path
) -> None:
    (tmp_path / "f.json").write_text(json.dumps(example.expected))
    html, markdown = tmp_path / "r.html", tmp_path / "r.md"
    options = ["--expected", str(tmp_path / "f.json"), "-o", str(html), "--markdown", str(markdown)]
    done = report(str(example.staging), "--production", str(example.production), *options)
    assert done.returncode == 0, done.stderr
    assert "replay_mirage" in html.read_text()
    assert "**FAIL**" in markdown.read_text()
    assert done.stdout == ""


def test_json_is_one_object_on_stdout(example: Example, tmp_path: Path) -> None:
    done = report(str(example.staging), "-o", str(tmp_path / "r.html"), "--json")
    assert json.loads(done.stdout)["schema"] == "loadkit.report/1"


def test_a_folder_that_is_no_run_is_bad_input_in_one_line(tmp_path: Path) -> None:
    done = report(str(tmp_path))
    assert done.returncode == 2
    assert "no run.json here" in done.stderr
    assert done.stderr.count("\n") == 1
