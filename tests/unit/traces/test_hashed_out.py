"""A log written without its text gives the same analysis."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loadkit.analysis import analyze
from loadkit.core.blocks import block_hashes, packed_tokens, root_hash
from loadkit.core.errors import InputError
from loadkit.core.trace import Trace
from loadkit.traces import TokenRequest, read_log, read_trace, token_trace, write_hashed
from loadkit.traces.tokens import TokenHasher

WriteLog = Callable[..., Path]


def figures(trace: Trace) -> dict[str, Any]:
    data = analyze(replace(trace, places=None), [1, 3, None]).to_dict()
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


def guesses(block_size: int) -> dict[str, set[int]]:
    """What a stranger tries: the chained hashes of prompts that anyone can think of, as numbers."""
    common = ["hello", "who are you", "system prompt of acme"]
    return {
        text: {
            int.from_bytes(digest[:8], "little", signed=True)
            for digest in block_hashes(list(text.encode()), block_size, root_hash())
        }
        for text in common
    }


def found_by_guessing(path: Path, block_size: int) -> set[str]:
    """The guessed prompts whose blocks stand in a log of hashes."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    logged = {value for row in rows for value in (*row["hashes"], row.get("prompt_id"))}
    return {text for text, hashes in guesses(block_size).items() if hashes <= logged}


def test_a_dictionary_finds_prompts_in_a_log_of_plain_hashes_and_none_in_ours(
    tmp_path: Path,
) -> None:
    prompts = ["system prompt of acme", "hello", "something that nobody guesses"]
    tokens = [list(prompt.encode()) for prompt in prompts]
    plain = tmp_path / "plain.jsonl"
    hasher = TokenHasher(2)
    rows = [
        {
            "prompt_tokens": len(prompt),
            "hashes": list(hasher.chain(packed_tokens(prompt), hasher.root(TokenRequest(prompt)))),
        }
        for prompt in tokens
    ]
    plain.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert found_by_guessing(plain, 2) == {"hello", "system prompt of acme"}

    ours = tmp_path / "ours.jsonl"
    trace = token_trace([TokenRequest(prompt) for prompt in tokens], 2)
    write_hashed(trace, ours)
    assert found_by_guessing(ours, 2) == set()
    write_hashed(read_trace([plain], block_size=2), ours)
    assert found_by_guessing(ours, 2) == set()


def test_the_file_is_gzipped_by_its_name_and_never_half_written(tmp_path: Path) -> None:
    trace = token_trace([TokenRequest([1, 2, 3])], 2)
    write_hashed(trace, tmp_path / "out.jsonl.gz")
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()).startswith(b"{")
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl.gz"]
    with pytest.raises(InputError, match="cannot be written"):
        write_hashed(trace, tmp_path / "nowhere" / "out.jsonl")
