"""Formats are found from the first row, and named when they cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadkit.core.errors import FormatError, InputError
from loadkit.core.tokenizer import Tokenizer
from loadkit.traces import read_log, read_trace

WriteLog = Callable[..., Path]


@pytest.mark.parametrize(
    ("row", "format"),
    [
        ({"timestamp": 0, "input_length": 5, "hash_ids": [1]}, "mooncake"),
        ({"prompt": [1, 2]}, "openai"),
        ({"timestamp_s": 0, "prompt_tokens": 16, "hashes": [1]}, "hashed"),
    ],
)
def test_the_format_is_found_from_the_first_row(
    write_log: WriteLog, row: dict[str, Any], format: str
) -> None:
    log = read_log([write_log(row)])
    assert log.format == format
    assert log.tokenizer_fingerprint is None
    assert log.trace.num_requests == 1


def test_a_mooncake_log_with_text_is_read_by_its_ids(write_log: WriteLog) -> None:
    row = {"timestamp": 0, "input_length": 5, "hash_ids": [1], "messages": []}
    assert read_log([write_log(row)]).format == "mooncake"


def test_the_tokenizer_that_was_used_is_named(write_log: WriteLog, letters: Tokenizer) -> None:
    log = read_log([write_log({"prompt": "ab"})], tokenizer=letters)
    assert log.tokenizer_fingerprint == letters.fingerprint


def test_an_unknown_format_is_refused_with_its_keys(write_log: WriteLog) -> None:
    with pytest.raises(FormatError, match=r"keys: input, output .*known formats: .*mooncake"):
        read_log([write_log({"output": 1, "input": 2})])


def test_naming_the_format_overrides_the_detection(write_log: WriteLog) -> None:
    with pytest.raises(FormatError, match="hash_ids"):
        read_log([write_log({"prompt": [1], "input_length": 1})], format="mooncake")


def test_an_unknown_format_name_is_refused(write_log: WriteLog) -> None:
    with pytest.raises(InputError, match="--format: unknown format 'csv'"):
        read_log([write_log({"prompt": [1]})], format="csv")


def test_a_block_size_below_one_is_refused(write_log: WriteLog) -> None:
    with pytest.raises(InputError, match="--block-size"):
        read_log([write_log({"prompt": [1]})], block_size=0)


def test_read_trace_is_the_trace_alone(write_log: WriteLog) -> None:
    assert read_trace([write_log({"prompt": [1, 2]})], block_size=2).num_blocks == 1
