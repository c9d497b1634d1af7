"""A reader that goes away (`loadkit ... | head -1`) is no verdict: never the gate's exit code 1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def log(tmp_path: Path) -> Path:
    rows = [{"timestamp": k, "input_length": 1024, "hash_ids": [1, k]} for k in range(2, 2000)]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def deaf(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command with nobody at the other end of its stdout."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [sys.executable, "-m", "loadkit", *arguments],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)


@pytest.mark.parametrize(
    "arguments",
    [
        ["analyze"],  # tables by Rich
        ["analyze", "--json"],  # fits the buffer: written as the interpreter ends
        ["analyze", "--json", "--capacity", ",".join(map(str, range(1, 60)))],  # does not
    ],
)
def test_a_reader_that_went_away_is_141_without_a_word(log: Path, arguments: list[str]) -> None:
    done = deaf(*arguments, str(log))
    assert (done.returncode, done.stderr) == (141, "")


def test_help_for_nobody_is_no_failed_gate() -> None:
    done = deaf("--help")
    assert (done.returncode, done.stderr) == (141, "")
