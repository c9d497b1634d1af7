"""A log written without its text gives the same analysis."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loadkit.analysis import analyze
from loadkit.core.blocks import block_hashes, packed_tokens, root_hash
from loadkit.core.errors import InputError
from loadkit.core.trace import Trace
from loadkit.traces import TokenRequest, read_key, read_log, read_trace, token_trace, write_hashed
from loadkit.traces.tokens import TokenHasher

WriteLog = Callable[..., Path]


def figures(trace: Trace) -> dict[str, Any]:
    data = analyze(replace(trace, places=None), [1, 3, None]).to_dict()
    return {key: value for key, value in data.items() if key != "warnings"}


def round_trip(trace: Trace, path: Path, key: bytes | None = None) -> Trace:
    write_hashed(trace, path, key)
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
@given(st.integers(0, 10**6), st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_a_hashed_log_gives_the_same_analysis(
    tmp_path: Path, seed: int, named: bool, timed: bool, replies: bool, keyed: bool
) -> None:
    trace = token_trace(sent(seed, named=named or keyed, timed=timed, replies=replies), 2)
    key = bytes(64) if keyed else None
    assert figures(round_trip(trace, tmp_path / "out.jsonl", key)) == figures(trace)


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


def guesses(block_size: int, key: bytes | None = None) -> dict[str, set[int]]:
    """What one tries: the chained hashes of prompts that anyone can think of, as numbers; under a
    key, if one has it, as docs/log-formats.md says they are made."""

    def number(digest: bytes) -> int:
        if key is None:
            return int.from_bytes(digest[:8], "little", signed=True)
        keyed = blake2b(digest[:8], key=blake2b(key).digest(), digest_size=8).digest()
        return (int.from_bytes(keyed, "little") >> 1) - 2**63

    common = ["hello", "who are you", "system prompt of acme"]
    return {
        text: set(map(number, block_hashes(list(text.encode()), block_size, root_hash())))
        for text in common
    }


def found_by_guessing(path: Path, block_size: int, key: bytes | None = None) -> set[str]:
    """The guessed prompts whose blocks stand in a log of hashes."""
    logged = {value for row in rows_of(path) for value in (*row["hashes"], row.get("prompt_id"))}
    return {text for text, hashes in guesses(block_size, key).items() if hashes <= logged}


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


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


KEY, OTHER_KEY = b"k" * 32, b"another key, also of 32 bytes..."


def write_keyed(path: Path, texts: dict[str, int], key: bytes = KEY) -> Path:
    """A log in blocks of 2 letters in which each text is sent by so many sessions."""
    requests = [
        TokenRequest(list(text.encode()), session=f"{text} {number}")
        for text, sessions in texts.items()
        for number in range(sessions)
    ]
    key_file = path.with_suffix(".key")
    key_file.write_bytes(key + b"\n")
    write_hashed(token_trace(requests, 2), path, read_key(key_file))
    return path


def test_a_dictionary_finds_common_prompts_in_a_keyed_log_with_the_key_alone(
    tmp_path: Path,
) -> None:
    log = write_keyed(tmp_path / "a.jsonl", {"system prompt of acme": 5, "hello": 4})
    assert found_by_guessing(log, 2, KEY) == {"system prompt of acme"}
    assert found_by_guessing(log, 2, OTHER_KEY) == set()
    assert found_by_guessing(log, 2) == set()


def test_a_session_that_asks_five_times_is_one_session(tmp_path: Path) -> None:
    requests = [TokenRequest(list(b"hello"), session="alice") for _ in range(5)]
    write_hashed(token_trace(requests, 2), tmp_path / "a.jsonl", KEY)
    assert all(min(row["hashes"]) >= 0 for row in rows_of(tmp_path / "a.jsonl"))


def test_logs_of_one_key_are_linked_by_common_blocks_and_by_nothing_else(tmp_path: Path) -> None:
    a = write_keyed(tmp_path / "a.jsonl", {"shared, then": 5, "rare": 4})
    b = write_keyed(tmp_path / "b.jsonl", {"shared, else": 6, "rare": 4})
    other = write_keyed(tmp_path / "c.jsonl", {"shared, then": 5}, OTHER_KEY)
    ids = [{value for row in rows_of(log) for value in row["hashes"]} for log in (a, b, other)]
    assert len(ids[0] & ids[1]) == len("shared, ") // 2
    assert max(ids[0] & ids[1]) < 0
    assert not ids[0] & ids[2]
    sessions = [{row["session"] for row in rows_of(log)} for log in (a, b)]
    assert not sessions[0] & sessions[1]
    together = read_trace([a, b])
    assert together.num_sessions == 5 + 4 + 6 + 4
    # "shared, then" and "shared, else" have 4 blocks in common and 2 of their own; "rare" has 2.
    assert together.num_unique_blocks == 4 + 2 + 2 + 2 + 2


def test_a_key_needs_tokens_sessions_and_length(write_log: WriteLog, tmp_path: Path) -> None:
    out, key = tmp_path / "out.jsonl", tmp_path / "key"
    key.write_bytes(b" " * 40 + b"k" * 31)
    with pytest.raises(InputError, match="31 bytes are no key"):
        read_key(key)
    with pytest.raises(InputError, match="cannot be read"):
        read_key(tmp_path / "nowhere")
    ids = write_log({"timestamp": 0, "input_length": 600, "hash_ids": [70, 80]})
    with pytest.raises(InputError, match="block ids and no tokens"):
        write_hashed(read_trace([ids]), out, KEY)
    with pytest.raises(InputError, match="sessions are inferred"):
        write_hashed(token_trace([TokenRequest([1, 2, 3])], 2), out, KEY)
    assert not out.exists()


def test_the_file_is_gzipped_by_its_name_and_never_half_written(tmp_path: Path) -> None:
    trace = token_trace([TokenRequest([1, 2, 3])], 2)
    write_hashed(trace, tmp_path / "out.jsonl.gz")
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()).startswith(b"{")
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl.gz"]
    with pytest.raises(InputError, match="cannot be written"):
        write_hashed(trace, tmp_path / "nowhere" / "out.jsonl")
