"""loadkit's own log of hashes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadkit.core.errors import FormatError
from loadkit.core.trace import Trace
from loadkit.traces import read_trace

WriteLog = Callable[..., Path]


def read(paths: list[Path], **options: Any) -> Trace:
    return read_trace(paths, format="hashed", **options)


def row(hashes: list[int], tokens: int, at_s: float, **more: Any) -> dict[str, Any]:
    return {"timestamp_s": at_s, "prompt_tokens": tokens, "hashes": hashes, **more}


def test_rows_become_columns_in_seconds(write_log: WriteLog) -> None:
    log = write_log(
        row([2**63 + 1], 20, 0.5, session="s", tenant="t", output_tokens=4, block_size=16),
        row([2**63 + 1, 9], 35, 2, session="s", tenant="t", block_size=16),
    )
    trace = read([log])
    assert trace.block_size == 16
    assert trace.block_ids.tolist() == [0, 0, 1]
    assert trace.session.tolist() == [0, 0]
    assert trace.arrival_s is not None
    assert trace.arrival_s.tolist() == [0.5, 2]


def test_a_hash_with_two_parents_is_refused(write_log: WriteLog) -> None:
    with pytest.raises(FormatError, match="another parent"):
        read([write_log(row([1, 2], 32, 0), row([3, 2], 32, 1))])


def test_a_reply_hash_may_be_unsigned_as_a_prompts_may(write_log: WriteLog) -> None:
    high = 2**64 - 2
    trace = read(
        [
            write_log(
                row([1], 16, 0, reply_hashes=[high], block_size=16),
                row([1, high], 32, 1, reply_hashes=[], block_size=16),
            )
        ]
    )
    assert trace.resident_ids is not None
    assert trace.resident_ids.tolist() == [0, 1, 0, 1]
    with pytest.raises(FormatError, match="does not fit 64 bits"):
        read([write_log(row([1], 16, 0, reply_hashes=[2**64], block_size=16))])
