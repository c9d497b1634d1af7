"""`analyze --sample` and `synthesize` as commands: one JSON object, and one line for a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Call


@pytest.fixture
def log(tmp_path: Path) -> Path:
    rows = [
        {"timestamp": 1000 * k, "input_length": 1030, "hash_ids": [1, 2, 100 + k]}
        for k in range(20)
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_a_sampled_analysis_says_that_it_is_sampled(loadkit: Call, log: Path) -> None:
    code, out, _ = loadkit("analyze", log, "--sample", "50%", "--json")
    assert code == 0
    data = json.loads(out)
    assert (data["schema"], data["sampled"]["rate"]) == ("loadkit.analysis/1", 0.5)
    # 19 of 20 prompts find their first two blocks, which are heavy: no chance is involved.
    assert data["infinite"]["hit_rate"] == pytest.approx(19 * 1024 / (20 * 1030))
    code, out, _ = loadkit("analyze", log, "--sample", "50%")
    assert code == 0
    assert "SAMPLED: 50% of the light blocks" in out


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
    loadkit: Call, log: Path, more: list[str], said: str
) -> None:
    code, _, err = loadkit("analyze", log, *more)
    assert code == 2
    assert said in err


def test_a_workload_of_token_ids_is_written_without_a_tokenizer(
    loadkit: Call, log: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    options = ["--traffic", "2x", "--token-ids", "-o", out, "--json"]
    code, printed, _ = loadkit("synthesize", log, *options)
    assert code == 0
    made = json.loads(printed)
    assert (made["schema"], made["requests"], made["lost_blocks"]) == ("loadkit.synthesis/1", 40, 0)
    assert [len(json.loads(line)["prompt"]) for line in out.read_text().splitlines()] == [1030] * 40


def test_a_workload_of_few_sessions_says_what_forecast_would_refuse(
    loadkit: Call, log: Path, tmp_path: Path
) -> None:
    def warnings(traffic: str) -> str:
        options = ["--token-ids", "-o", tmp_path / "out.jsonl", "--json", "--traffic", traffic]
        return " ".join(json.loads(loadkit("synthesize", log, *options).out)["warnings"])

    assert loadkit("forecast", log, "--traffic", "2x").code == 3
    assert "the log has 20 sessions, fewer than 100" in warnings("2x")
    assert "fewer than 100" not in warnings("1x"), "nothing is grown"


def test_chats_without_a_tokenizer_are_refused_with_a_way_out(
    loadkit: Call, log: Path, tmp_path: Path
) -> None:
    code, _, err = loadkit("synthesize", log, "-o", tmp_path / "out.jsonl")
    assert code == 2
    assert "write token ids with --token-ids" in err


def test_a_log_of_token_ids_is_sampled_and_a_cluster_needs_a_sample(
    loadkit: Call, tmp_path: Path
) -> None:
    path = tmp_path / "tokens.jsonl"
    rows = [{"prompt": [*range(32), k, *range(40)]} for k in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    code, printed, _ = loadkit("analyze", path, "--sample", "100%", "--json")
    assert code == 0
    data = json.loads(printed)
    # 9 of 10 prompts of 73 tokens find their first two blocks of 16.
    assert (data["format"], data["infinite"]["hit_rate"]) == ("openai", pytest.approx(9 * 32 / 730))
    for options, said in (
        (["--engine-distributed", "ray"], "a cluster takes samples"),
        (["--engine-distributed", "dask", "--sample", "1%"], "unknown engine 'dask'"),
    ):
        code, _, err = loadkit("analyze", path, *options)
        assert code == 2
        assert said in err
