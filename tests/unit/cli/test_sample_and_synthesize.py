"""`analyze --sample` and `synthesize` as commands: one JSON object, and one line for a mistake."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from loadkit.cli import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["loadkit", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    rows = [
        {"timestamp": 1000 * k, "input_length": 1030, "hash_ids": [1, 2, 100 + k]}
        for k in range(20)
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_a_sampled_analysis_says_that_it_is_sampled(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "analyze", str(log), "--sample", "50%", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["schema"], data["sampled"]["rate"]) == ("loadkit.analysis/1", 0.5)
    # 19 of 20 prompts find their first two blocks, which are heavy: no chance is involved.
    assert data["infinite"]["hit_rate"] == pytest.approx(19 * 1024 / (20 * 1030))
    assert run(monkeypatch, "analyze", str(log), "--sample", "50%") == 0
    assert "SAMPLED: 50% of the light blocks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--sample", "0%"], "a share as 1%"),
        (["--sample", "1"], "a share as 1%"),
        (["--sample", "1%", "--policy", "lfu"], "--policy: not to be had from a sample"),
        (["--sample", "1%", "--engine", "none"], "--engine: not to be had from a sample"),
    ],
)
def test_a_sample_that_makes_no_sense_is_exit_code_2(
    log: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    said: str,
) -> None:
    assert run(monkeypatch, "analyze", str(log), *more) == 2
    assert said in capsys.readouterr().err


def test_a_workload_of_token_ids_is_written_without_a_tokenizer(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    options = ["--traffic", "2x", "--token-ids", "-o", str(out), "--json"]
    assert run(monkeypatch, "synthesize", str(log), *options) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["schema"], made["requests"], made["lost_blocks"]) == ("loadkit.synthesis/1", 40, 0)
    assert [len(json.loads(line)["prompt"]) for line in out.read_text().splitlines()] == [1030] * 40


def test_chats_without_a_tokenizer_are_refused_with_a_way_out(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "synthesize", str(log), "-o", str(tmp_path / "out.jsonl")) == 2
    assert "write token ids with --token-ids" in capsys.readouterr().err
