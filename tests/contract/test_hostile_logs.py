"""Whatever stands in a log file, reading it ends in a Trace or in an InputError with a place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from log_samples import make_letters, rows_of, write

from loadkit.analysis import analyze
from loadkit.core.errors import InputError
from loadkit.traces import FORMATS, read_log

LETTERS_TOKENIZER = make_letters()
DELETED = "(deleted)"
KEYS = sorted({key for format in FORMATS for row in rows_of(format) for key in row})
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
        log = read_log([path], format=format, tokenizer=LETTERS_TOKENIZER)
        analysis = analyze(log.trace, [1, None])
    except InputError as error:
        return str(error)
    json.dumps(analysis.to_dict(), allow_nan=False)
    assert 0 <= (analysis.infinite.hit_rate or 0) <= 1
    return None


def read_and_analyze(path: Path, formats: Sequence[str] = ("auto", *FORMATS)) -> None:
    for format in formats:
        message = refusal(path, format)
        assert message is None or str(path) in message


def settled(function: Any) -> Any:
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=100, deadline=None, suppress_health_check=quiet)(function)


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


def places_in(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside a JSON value, the whole left out."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    ways = []
    for key, child in inner:
        ways.append((*at, key))
        if isinstance(child, dict | list):
            ways += places_in(child, (*at, key))
    return ways


def changed(row: Any, way: tuple[Any, ...], value: Any) -> Any:
    """A copy with one value replaced, or left out if the new one is DELETED."""
    copy = json.loads(json.dumps(row))
    inner = copy
    for key in way[:-1]:
        inner = inner[key]
    if value == DELETED:
        del inner[way[-1]]
    else:
        inner[way[-1]] = value
    return copy


@pytest.mark.parametrize("format", FORMATS)
@settled
@given(data=st.data())
def test_a_row_with_one_value_changed_is_read_or_refused(
    tmp_path: Path, format: str, data: st.DataObject
) -> None:
    log = rows_of(format)
    at = data.draw(st.integers(0, len(log) - 1))
    way = data.draw(st.sampled_from(places_in(log[at])))
    log[at] = changed(log[at], way, data.draw(values | st.just(DELETED)))
    read_and_analyze(write(tmp_path / "log.jsonl", log), ("auto", format))


@pytest.mark.parametrize("format", FORMATS)
@settled
@given(data=st.data())
def test_a_parquet_row_with_one_value_changed_is_read_or_refused(
    tmp_path: Path, format: str, data: st.DataObject
) -> None:
    log = rows_of(format)
    for row in log:
        way = data.draw(st.sampled_from(places_in(row)))
        row |= changed(row, way, data.draw(values))
    path = tmp_path / "log.parquet"
    try:
        pq.write_table(pa.Table.from_pylist(log), path)
    except (pa.ArrowException, OverflowError, TypeError, UnicodeEncodeError):
        return  # not every mixture of values makes a table
    read_and_analyze(path, ("auto", format))


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
