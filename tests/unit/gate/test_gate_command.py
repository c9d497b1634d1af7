"""`loadkit gate` at the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import Answer, Call
from gate_builders import expected, folder, mirage, run


def gate(loadkit: Call, base: Path, measured: dict[str, Any] | None, *extra: str) -> Answer:
    if measured is None:
        (base / "run").mkdir()
    else:
        folder(base / "run", measured)
    (base / "f.json").write_text(json.dumps(expected()))
    options = ["--measured", base / "run", "--expected", base / "f.json", *extra]
    return loadkit("gate", *options)


@pytest.mark.parametrize(
    ("measured", "code", "word"),
    [
        (run(), 0, "PASS"),
        (mirage(), 1, "replay_mirage"),
        (run(split__sessions=3), 3, "INCONCLUSIVE"),
    ],
)
def test_the_verdict_is_the_exit_code_and_stands_in_the_text(
    loadkit: Call, tmp_path: Path, measured: dict[str, Any], code: int, word: str
) -> None:
    done = gate(loadkit, tmp_path, measured)
    assert (done.code, done.err) == (code, "")
    assert word in done.out


@pytest.mark.parametrize(
    ("measured", "says"),
    [
        (run(), "PASS measured hit rate 40.0%, expected 41.0%; ±2.0 points for chance"),
        (run(split__sessions=3), "how far chance moves so small a run cannot be said"),
        (run(capacity_blocks=900), "the two are not compared"),
    ],
)
def test_the_first_line_compares_only_what_can_be_compared(
    loadkit: Call, tmp_path: Path, measured: dict[str, Any], says: str
) -> None:
    done = gate(loadkit, tmp_path, measured)
    assert says in " ".join(done.out.split())


def test_json_is_one_object_on_stdout_and_in_the_file(loadkit: Call, tmp_path: Path) -> None:
    done = gate(loadkit, tmp_path, mirage(), "--json", "-o", str(tmp_path / "gate.json"))
    answer = json.loads(done.out)
    assert answer["verdict"] == "FAIL"
    assert json.loads((tmp_path / "gate.json").read_text()) == answer


def test_a_folder_that_is_no_run_is_bad_input_in_one_line(loadkit: Call, tmp_path: Path) -> None:
    done = gate(loadkit, tmp_path, None)
    assert done.code == 2
    assert done.err.startswith("loadkit: ")
    assert "no run.json here" in done.err
    assert done.err.count("\n") == 1


def test_control_characters_of_a_run_do_not_reach_the_terminal(
    loadkit: Call, tmp_path: Path
) -> None:
    late = {"code": "invalid_timing", "message": "late \x1b]0;owned\x07 [red]x[/red]"}
    done = gate(loadkit, tmp_path, run(status="invalid", reasons=[late]))
    assert done.code == 3
    assert "\x1b" not in done.out
    assert "\x07" not in done.out
    assert "[red]x[/red]" in done.out


def test_a_forecast_says_for_which_model_it_is_and_gate_refuses_another(
    loadkit: Call, tmp_path: Path
) -> None:
    rows = [
        {"timestamp": 1000 * n, "input_length": 1024, "output_length": 1, "hash_ids": [0, n + 1],
         "session_id": f"s{n}"}
        for n in range(40)
    ]  # fmt: skip
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "f.json"
    made = loadkit("forecast", tmp_path / "log.jsonl", "--for-model", "other", "-o", out)
    assert made.code == 0, made.err
    assert json.loads(out.read_text())["log"]["model"] == "other"
    done = loadkit("gate", "--measured", folder(tmp_path / "run", run()), "--expected", out)
    assert done.code == 3
    assert "model m, the forecast other" in done.out
