"""`loadkit analyze` and `loadkit forecast` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import Call

ROWS = [
    {"timestamp": 0, "input_length": 1025, "hash_ids": [1, 2, 3], "session_id": "a"},
    {"timestamp": 1, "input_length": 1025, "hash_ids": [1, 2, 3], "session_id": "b"},
    {"timestamp": 2, "input_length": 1030, "hash_ids": [1, 2, 4], "session_id": "a"},
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Three prompts of two full blocks and a tail: one new, one replay, one continuation."""
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_analyze_json_is_one_object_and_nothing_else(loadkit: Call, log: Path) -> None:
    code, out, err = loadkit("analyze", log, "--json", "--capacity", "2,1,1024tok")
    data = json.loads(out)
    assert (code, err) == (0, "")
    assert data["format"] == "mooncake"
    assert [point["capacity_blocks"] for point in data["curve"]] == [2, 1, 2]
    assert data["infinite"]["replay_cross_session"] == 1024 / 3080
    assert data["infinite"]["continuation"] == 1024 / 3080


def test_analyze_prints_the_headline_the_causes_and_the_curve(loadkit: Call, log: Path) -> None:
    code, out, _ = loadkit("analyze", log)
    assert code == 0
    assert "mooncake log: 3 requests, 2 sessions" in out
    assert "66.5% of the prompt tokens are reusable" in out
    assert "token-weighted, infinite cache, blocks of 512 tokens" in out
    assert "organic hit rate 49.8%" in out
    for cause in ("replay same session", "replay cross session", "continuation", "shared", "miss"):
        assert cause in out


def test_analyze_writes_the_same_json_to_a_file(loadkit: Call, log: Path, tmp_path: Path) -> None:
    target = tmp_path / "analysis.json"
    _, out, _ = loadkit("analyze", log, "--json", "-o", target)
    assert json.loads(target.read_text()) == json.loads(out)
    assert sorted(tmp_path.iterdir()) == [target, log]


def test_an_output_that_is_a_folder_is_refused_and_nothing_is_left(
    loadkit: Call, log: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    code, _, err = loadkit("analyze", log, "-o", tmp_path / "out")
    assert code == 2
    assert "cannot be written" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "out"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--capacity", "40GiB"], "in bytes"),
        (["--capacity", "lots"], "not understood"),
        (["--format", "csv"], "unknown format 'csv'"),
        (["--block-size", "16"], "do not fit 1025 tokens"),
        (["-o", "/no-such-folder/x.json"], "no such folder"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(
    loadkit: Call, log: Path, arguments: list[str], message: str
) -> None:
    code, out, err = loadkit("analyze", log, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("loadkit: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_log_that_is_not_there_is_exit_2(loadkit: Call, tmp_path: Path) -> None:
    code, _, err = loadkit("analyze", tmp_path / "none.jsonl")
    assert code == 2
    assert "No such file" in err


def test_forecast_of_the_log_itself_is_exact(loadkit: Call, log: Path, tmp_path: Path) -> None:
    target = tmp_path / "expected.json"
    code, out, err = loadkit("forecast", log, "--traffic", "1x", "--json", "-o", target)
    data = json.loads(out)
    assert (code, err) == (0, "")
    assert data["status"] == "ok"
    assert data["hit_rate"]["estimate"] == 2048 / 3080
    assert json.loads(target.read_text()) == data


def test_a_forecast_that_needs_extrapolation_prints_json_and_exits_3(
    loadkit: Call, log: Path, tmp_path: Path
) -> None:
    target = tmp_path / "expected.json"
    code, out, err = loadkit("forecast", log, "--traffic", "20x", "--json", "-o", target)
    data = json.loads(out)
    assert code == 3
    assert data["status"] == "inconclusive"
    assert data["hit_rate"]["estimate"] is None
    assert "fewer than 100" in err
    assert json.loads(target.read_text()) == data


def test_forecast_prints_a_headline_and_the_naive_answers(loadkit: Call, log: Path) -> None:
    code, out, _ = loadkit("forecast", log, "--capacity", "4")
    assert code == 0
    assert "66.5% hit rate at the log's own traffic" in out
    assert "LRU cache of 4 blocks" in out
    assert "naive answers, for comparison only" in out


def test_a_refused_forecast_shows_no_rate_but_the_naive_ones(loadkit: Call, log: Path) -> None:
    code, out, err = loadkit("forecast", log, "--traffic", "3x")
    assert code == 3
    assert "no forecast for traffic 3x" in out
    assert "organic" not in out
    assert err.startswith("loadkit: no forecast")


def test_markup_in_a_log_is_printed_as_it_stands(loadkit: Call, tmp_path: Path) -> None:
    path = tmp_path / "[bold]x[bold].jsonl"
    path.write_text('{"[red]": 1}\n')
    code, _, err = loadkit("analyze", path)
    assert code == 2
    assert "[bold]x[bold].jsonl:1" in err
    assert "[red]" in err


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_analyze_says_what_broke_append_only_and_what_carries_the_hits(
    loadkit: Call, tmp_path: Path
) -> None:
    sent = [("a", [1, 2, 3]), ("a", [1, 12, 13]), ("b", [1, 22, 23]), ("b", [1, 22, 23])]
    rows = [{"input_length": 1536, "hash_ids": ids, "session_id": name} for name, ids in sent]
    code, out, _ = loadkit("analyze", write_rows(tmp_path / "log.jsonl", rows))
    assert code == 0
    # The second turn of `a` may hit 2 blocks and hits 1: 512 of 6,144 tokens.
    assert "What broke append-only: 512 prompt tokens lost, 8.3% of all" in out
    assert "2 turn pairs: 1 kept their prefix (50.0%), 1 rewrote it, 0 cut it off" in out
    assert "the prompt changed after its first block  512 tokens in 1 pair" in out
    assert "fix: This log has no text" in out
    assert "e.g. log.jsonl:2 after :1" in out
    shared = out[out.index("Shared prefixes") :].splitlines()[2].split()
    assert shared == ["100.0%", "512", "0", "2", "4", "in", "request", "1"]


def test_analyze_of_single_turns_has_no_audit_and_no_leaderboard(
    loadkit: Call, tmp_path: Path
) -> None:
    rows = [{"input_length": 512, "hash_ids": [k], "session_id": k} for k in range(3)]
    code, out, _ = loadkit("analyze", write_rows(tmp_path / "log.jsonl", rows))
    assert code == 0
    assert "ppend-only" not in out
    assert "Shared prefixes" not in out


def test_a_curve_that_was_asked_for_is_shown_whole(loadkit: Call, log: Path) -> None:
    _, out, _ = loadkit("analyze", log, "--capacity", ",".join(map(str, range(1, 13))))
    curve = out[out.index("LRU cache") : out.index("\nMore")].strip().splitlines()[2:]
    assert curve.pop().startswith("placed on arrival")
    assert [line.split()[0] for line in curve] == [str(size) for size in range(1, 13)]
