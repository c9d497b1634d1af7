"""A log written without its text gives the same analysis."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loadkit.analysis import analyze
from loadkit.core.errors import InputError
from loadkit.core.trace import Trace
from loadkit.traces import TokenRequest, read_log, read_trace, token_trace, write_hashed

WriteLog = Callable[..., Path]


def figures(trace: Trace) -> dict[str, Any]:
    data = analyze(trace, [1, 3, None]).to_dict()
    return {key: value for key, value in data.items() if key != "warnings"}


def round_trip(trace: Trace, path: Path) -> Trace:
    write_hashed(trace, path)
    log = read_log([path])
    assert log.format == "hashed"
    return log.trace


def sent(seed: int, *, named: bool, timed: bool, replies: bool) -> Sequence[TokenRequest]:
    """Requests that share beginnings, go on, repeat, and end in the middle of blocks."""
    draw = random.Random(seed)
    prompts = [[draw.randrange(3) for _ in range(draw.randrange(12))] for _ in range(6)]
    return [
        TokenRequest(
            draw.choice(prompts) + [draw.randrange(2) for _ in range(draw.randrange(4))],
            reply=[1] * draw.randrange(5) if replies and draw.random() < 0.8 else None,
            session=draw.randrange(4) if named else None,
            arrival_s=draw.random() * 10 if timed else None,
            latency_s=draw.random() if draw.random() < 0.5 else None,
        )
        for _ in range(20)
    ]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 10**6), st.booleans(), st.booleans(), st.booleans())
def test_a_hashed_log_gives_the_same_analysis(
    tmp_path: Path, seed: int, named: bool, timed: bool, replies: bool
) -> None:
    trace = token_trace(sent(seed, named=named, timed=timed, replies=replies), 2)
    assert figures(round_trip(trace, tmp_path / "out.jsonl")) == figures(trace)


def test_ids_of_partial_blocks_survive(write_log: WriteLog, tmp_path: Path) -> None:
    log = write_log(
        {"timestamp": 0, "input_length": 600, "hash_ids": [70, 80]},
        {"timestamp": 9, "input_length": 600, "hash_ids": [70, 80]},
        {"timestamp": 9, "input_length": 1200, "hash_ids": [70, 90, 60]},
    )
    trace = read_trace([log])
    again = round_trip(trace, tmp_path / "out.jsonl.gz")
    assert figures(again) == figures(trace)
    assert again.prompt_key.tolist() == [0, 0, 1]


def test_nothing_of_the_text_or_of_any_id_is_written(write_log: WriteLog, tmp_path: Path) -> None:
    log = write_log(
        {"prompt": [101, 102, 103, 104], "session_id": "alice", "timestamp": 5},
        {"prompt": [101, 102, 105, 106, 107], "session_id": "bob", "timestamp": 6},
    )
    out = tmp_path / "out.jsonl"
    write_hashed(read_trace([log], block_size=2), out)
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {
            "prompt_tokens": 4,
            "block_size": 2,
            "hashes": [0, 1],
            "prompt_id": 0,
            "timestamp_s": 5.0,
            "session": 0,
            "partial_page": False,
        },
        {
            "prompt_tokens": 5,
            "block_size": 2,
            "hashes": [0, 2],
            "prompt_id": 1,
            "timestamp_s": 6.0,
            "session": 1,
            "partial_page": True,
        },
    ]


def test_the_file_is_gzipped_by_its_name_and_never_half_written(tmp_path: Path) -> None:
    trace = token_trace([TokenRequest([1, 2, 3])], 2)
    write_hashed(trace, tmp_path / "out.jsonl.gz")
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()).startswith(b"{")
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl.gz"]
    with pytest.raises(InputError, match="cannot be written"):
        write_hashed(trace, tmp_path / "nowhere" / "out.jsonl")
