"""Whatever stands in a log file, reading it ends in a Trace or in an InputError with a place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from loadkit.analysis import analyze
from loadkit.core.errors import InputError
from loadkit.traces import FORMATS, read_log

KEYS = [
    "timestamp",
    "timestamp_s",
    "input_length",
    "prompt_tokens",
    "hash_ids",
    "hashes",
    "block_size",
    "session_id",
    "session",
    "prompt",
    "response",
    "cache_salt",
]
numbers = st.integers() | st.floats() | st.sampled_from([0, 1, 16, 2**31, 2**63, 2**64, 10**400])
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(st.integers(0, 5), max_size=4)
        | st.dictionaries(
            st.sampled_from(["content", "token_ids", "choices", "latency_s"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
rows = st.dictionaries(st.sampled_from(KEYS), values, max_size=6)


def refusal(path: Path, format: str) -> str | None:
    """The user's error, None if all went well. Any other exception fails the test."""
    try:
        analysis = analyze(read_log([path], format=format).trace, [1, None])
    except InputError as error:
        return str(error)
    json.dumps(analysis.to_dict(), allow_nan=False)
    return None


def read_and_analyze(path: Path) -> None:
    for format in ("auto", *FORMATS):
        message = refusal(path, format)
        assert message is None or str(path) in message


def settled(function: Any) -> Any:
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=250, deadline=None, suppress_health_check=quiet)(function)


@settled
@given(st.lists(rows, min_size=1, max_size=4))
@example([{"prompt": [1], "timestamp": 10**400}])
@example([{"input_length": 5, "hash_ids": [1], "timestamp": 10**308}])
@example([{"input_length": 2**40, "hash_ids": [], "block_size": 2**62}])
@example([{"prompt": [1], "cache_salt": "\ud800"}])
@example([{"prompt": [2**31 - 1], "timestamp": 1e308, "response": {"latency_s": 1e308}}])
def test_rows_of_any_json_are_read_or_refused(tmp_path: Path, log: list[dict[str, Any]]) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in log))
    read_and_analyze(path)


@settled
@given(st.binary(max_size=60))
def test_any_bytes_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(data)
    read_and_analyze(path)


@pytest.mark.parametrize("name", ["log.jsonl.gz", "log.jsonl.zst"])
@settled
@given(data=st.binary(max_size=40))
def test_any_bytes_under_a_compressed_name_are_refused(
    tmp_path: Path, name: str, data: bytes
) -> None:
    magic = {"log.jsonl.gz": b"\x1f\x8b\x08", "log.jsonl.zst": b"\x28\xb5\x2f\xfd"}[name]
    for content in (data, magic + data):
        path = tmp_path / name
        path.write_bytes(content)
        read_and_analyze(path)
