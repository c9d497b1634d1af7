"""Options of the verbs that read a log: bad rows, sizes in bytes, a log without its text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import Call

ROWS = [
    {"timestamp": 1000, "input_length": 1025, "hash_ids": [1, 2, 3], "session_id": "a"},
    {"timestamp": 2000, "input_length": 1030, "hash_ids": [1, 2, 4], "session_id": "a"},
]


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_bad_row_is_an_error_unless_it_is_to_be_skipped(loadkit: Call, tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", ROWS[0], {"timestamp": 5}, ROWS[1])
    code, _, err = loadkit("analyze", log, "--json")
    assert code == 2
    assert "log.jsonl:2" in err
    code, out, _ = loadkit("analyze", log, "--json", "--skip-bad")
    data = json.loads(out)
    assert (code, data["requests"]) == (0, 2)
    assert data["warnings"][0] == "1 bad row was skipped"
    assert "log.jsonl:2" in data["warnings"][1]


def test_strict_refuses_what_is_a_warning_otherwise(loadkit: Call, tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", *ROWS[::-1])
    assert loadkit("analyze", log, "--json")[0] == 0
    for verb in ("analyze", "forecast"):
        code, _, err = loadkit(verb, log, "--strict")
        assert code == 2
        assert "timestamps go backwards 1 times" in err
    assert loadkit("analyze", log, "--strict", "--skip-bad")[0] == 2


def test_a_log_written_without_its_text_is_analyzed_alike(loadkit: Call, tmp_path: Path) -> None:
    log, out_log = write(tmp_path / "log.jsonl", *ROWS), tmp_path / "out.jsonl"
    _, before, _ = loadkit("analyze", log, "--json", "--hashed-out", out_log)
    _, after, _ = loadkit("analyze", out_log, "--json")
    assert json.loads(before) | {"format": "hashed"} == json.loads(after)


def test_a_log_is_written_under_a_key(loadkit: Call, tmp_path: Path) -> None:
    rows = [{"prompt": [1, 2, 3], "session_id": str(k), "timestamp": k} for k in range(5)]
    log, out_log = write(tmp_path / "log.jsonl", *rows), tmp_path / "out.jsonl"
    key = tmp_path / "key"
    key.write_text("0123456789abcdef0123456789abcdef")
    options = ("--hashed-out", out_log, "--hash-key", key, "--block-size", 2)
    assert loadkit("analyze", log, *options)[0] == 0
    written = [json.loads(line)["hashes"] for line in out_log.read_text().splitlines()]
    assert written == [written[0]] * 5
    assert written[0][0] < 0
    code, _, err = loadkit("analyze", log, "--hash-key", key)
    assert (code, "--hashed-out" in err) == (2, True)


def test_a_cache_type_without_the_models_config_is_told(loadkit: Call, tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", *ROWS)
    for verb in ("analyze", "forecast"):
        code, _, err = loadkit(verb, log, "--kv-dtype", "fp8")
        assert (code, "--kv-dtype: says nothing by itself (add --model-config" in err) == (2, True)


def test_one_is_one_request_and_a_refusal_leaves_no_hole(loadkit: Call, tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", ROWS[0])
    assert "1 request, 1 session, 1,025 prompt tokens" in loadkit("analyze", log).out
    code, out, _ = loadkit("forecast", log, "--traffic", "5x")
    assert (code, out.splitlines()[0]) == (3, "from 1 request, 1 session, 1,025 prompt tokens")
    assert "\n\n\n" not in out


def test_a_log_given_as_a_forecast_is_told_with_what_makes_one(
    loadkit: Call, tmp_path: Path
) -> None:
    log = write(tmp_path / "log.jsonl", *ROWS)
    for verb in (["report", tmp_path], ["gate", "--measured", tmp_path]):
        code, _, err = loadkit(*verb, "--expected", log)
        assert code == 2
        assert "as a request log does (make the forecast of a log with `loadkit forecast LOG" in err


def test_capacities_in_bytes_need_the_models_config(loadkit: Call, tmp_path: Path) -> None:
    log, config = write(tmp_path / "log.jsonl", *ROWS), tmp_path / "config.json"
    # 2 x 1 layer x 1 head x 128 numbers x 4 bytes: 1 KiB a token, so 1 MiB is two blocks of 512.
    config.write_text(
        json.dumps(
            {
                "num_hidden_layers": 1,
                "num_attention_heads": 1,
                "hidden_size": 128,
                "dtype": "float32",
            }
        )
    )
    code, _, err = loadkit("analyze", log, "--capacity", "1MiB")
    assert (code, "--model-config" in err) == (2, True)
    _, out, _ = loadkit("analyze", log, "--capacity", "1MiB,7", "--model-config", config, "--json")
    assert [point["capacity_blocks"] for point in json.loads(out)["curve"]] == [2, 7]


@pytest.mark.parametrize(
    "verb",
    [
        ("analyze", "-o"),
        ("analyze", "--hashed-out"),
        ("forecast", "-o"),
        ("synthesize", "--token-ids", "-o"),
    ],
)
def test_a_missing_folder_is_told_before_the_log_is_read(
    loadkit: Call, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    """The log is not there either: what is said shows what was looked at first."""
    name, *options = verb
    answer = loadkit(name, tmp_path / "no.jsonl", *options, tmp_path / "nowhere" / "x.json")
    assert answer.code == 2
    assert f"{tmp_path / 'nowhere'}: no such folder (make it for x.json)" in answer.err
