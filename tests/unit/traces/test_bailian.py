"""Bailian rows: ids of single blocks, sessions by parent links."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadkit.core.errors import FormatError
from loadkit.core.trace import Trace
from loadkit.traces import read_trace

WriteLog = Callable[..., Path]


def read(*paths: Path, **options: Any) -> Trace:
    return read_trace(paths, format="bailian", **options)


def row(chat: int | str, ids: list[int], parent: int | str = -1, **more: Any) -> dict[str, Any]:
    length = 16 * len(ids)
    return {
        "chat_id": chat,
        "parent_chat_id": parent,
        "timestamp": 1.5,
        "input_length": length,
        "hash_ids": ids,
        **more,
    }


def test_blocks_are_of_16_tokens_and_times_in_seconds(write_log: WriteLog) -> None:
    trace = read(write_log(row(7, [3, 4], output_length=9)))
    assert trace.block_size == 16
    assert trace.arrival_s is not None
    assert trace.arrival_s.tolist() == [1.5]
    assert trace.output_tokens.tolist() == [9]
    assert trace.warnings == ()


def test_an_id_after_another_beginning_is_another_block(write_log: WriteLog) -> None:
    # Block 5 stands after 1 and after 2: two prefixes, though the log gives both the same id.
    trace = read(write_log(row(1, [1, 5]), row(2, [2, 5]), row(3, [1, 5])))
    assert trace.block_ids.tolist() == [0, 1, 2, 3, 0, 1]
    assert trace.warnings == (
        "the block ids stand for single blocks: 3 ids were chained to 4 prefixes on reading",
    )


def test_a_block_may_be_repeated_in_a_row(write_log: WriteLog) -> None:
    assert read(write_log(row(1, [8, 8, 8]), row(2, [8, 8]))).block_ids.tolist() == [0, 1, 2, 0, 1]


def test_parent_links_make_sessions(write_log: WriteLog) -> None:
    # 4 follows 2 follows 1; 3 is alone; 5 follows 1 too.
    log = write_log(
        row(1, [1]), row(2, [1, 2], 1), row(3, [9]), row(4, [1, 2, 3], 2), row(5, [1, 7], 1)
    )
    assert read(log).session.tolist() == [0, 0, 1, 0, 0]


def test_a_link_may_stand_before_the_row_that_it_names(write_log: WriteLog) -> None:
    assert read(write_log(row("b", [1], "a"), row("a", [2]))).session.tolist() == [0, 0]


def test_rows_with_the_same_lost_parent_are_one_session_and_counted(write_log: WriteLog) -> None:
    trace = read(write_log(row(2, [1], 99), row(3, [2], 99), row(4, [3], 98)))
    assert trace.session.tolist() == [0, 0, 1]
    assert "3 rows name a parent_chat_id that the log does not hold" in trace.warnings


def test_links_in_a_circle_are_refused(write_log: WriteLog) -> None:
    log = write_log(row(1, [1]), row(2, [2], 3), row(3, [3], 4), row(4, [4], 2))
    with pytest.raises(FormatError, match=r":2: the parent_chat_id links go in a circle"):
        read(log)


def test_a_chat_that_is_its_own_parent_is_a_first_one(write_log: WriteLog) -> None:
    assert read(write_log(row(1, [1], 1), row(2, [2], 1))).session.tolist() == [0, 0]


def test_repeated_chat_ids_are_counted(write_log: WriteLog) -> None:
    trace = read(write_log(row(1, [1]), row(1, [1]), row(1, [2])))
    assert trace.warnings[0].startswith("2 rows have the request id of an earlier row")
