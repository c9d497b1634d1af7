"""Mooncake rows in, columns out; every fault named with its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadkit.core.errors import FormatError
from loadkit.core.trace import UNKNOWN, Trace
from loadkit.traces import read_log, read_trace

WriteLog = Callable[..., Path]


def read(paths: list[Path], **options: Any) -> Trace:
    return read_trace(paths, format="mooncake", **options)


def row(ids: list[int], length: int, at_ms: float = 0, **more: Any) -> dict[str, Any]:
    return {"timestamp": at_ms, "input_length": length, "hash_ids": ids, **more}


def test_rows_become_columns(write_log: WriteLog) -> None:
    log = write_log(
        row([7, 8], 1000, 1500, output_length=3, session_id="s"),
        row([7, 8, 9], 1536, 3000, session_id="s"),
        row([7], 512, 3000, session_id="t"),
    )
    trace = read([log])
    assert trace.block_size == 512
    assert trace.prompt_tokens.tolist() == [1000, 1536, 512]
    assert trace.block_ptr.tolist() == [0, 2, 5, 6]
    assert trace.block_ids.tolist() == [0, 1, 0, 1, 2, 0]
    assert trace.arrival_s is not None
    assert trace.arrival_s.tolist() == [1.5, 3.0, 3.0]
    assert trace.output_tokens.tolist() == [3, UNKNOWN, UNKNOWN]
    assert trace.session.tolist() == [0, 0, 1]
    assert not trace.sessions_inferred
    assert trace.resident_ids is None
    assert trace.partial_page is None
    assert trace.warnings == ()


def test_files_are_read_as_one_log(write_log: WriteLog) -> None:
    first = write_log(row([1], 512, 0), name="a.jsonl")
    second = write_log(row([1, 2], 1024, 10), name="b.jsonl")
    assert read([first, second]).block_ids.tolist() == [0, 0, 1]


def test_prompts_of_equal_ids_and_length_have_one_key(write_log: WriteLog) -> None:
    log = write_log(row([1, 2], 600), row([1, 2], 600), row([1, 2], 601), row([1], 512))
    keys = read([log]).prompt_key.tolist()
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_prompts_without_any_id_are_not_taken_for_equal(write_log: WriteLog) -> None:
    keys = read([write_log(row([], 5), row([], 5))]).prompt_key.tolist()
    assert keys[0] != keys[1]


def test_rows_out_of_time_are_sorted_stably_and_told(write_log: WriteLog) -> None:
    log = write_log(row([1], 10, 5), row([2], 20, 1), row([3], 30, 5), row([4], 40, 1))
    trace = read([log], block_size=512)
    assert trace.prompt_tokens.tolist() == [20, 40, 10, 30]
    assert trace.block_ids.tolist() == [0, 1, 2, 3]
    assert (
        trace.warnings[0] == f"timestamps go backwards 2 times, first at {log}:2: rows were sorted"
    )


def test_unsigned_64_bit_ids_are_kept_apart(write_log: WriteLog) -> None:
    trace = read([write_log(row([2**64 - 1, 2**63], 1024), row([5], 512))])
    assert trace.num_unique_blocks == 3


def test_ids_beyond_64_bits_are_refused(write_log: WriteLog) -> None:
    with pytest.raises(FormatError, match=r"log\.jsonl:1: block id \d+ does not fit 64 bits"):
        read([write_log(row([2**64], 512))])


def test_a_row_may_name_the_block_size(write_log: WriteLog) -> None:
    assert read([write_log(row([1, 2], 32, block_size=16))]).block_size == 16


def test_two_block_sizes_in_one_log_are_refused(write_log: WriteLog) -> None:
    log = write_log(row([1], 16, block_size=16), row([2], 32, block_size=32))
    with pytest.raises(FormatError, match=":2: the row has block_size 32, earlier ones 16"):
        read([log])


def test_a_block_size_other_than_the_rows_own_is_refused(write_log: WriteLog) -> None:
    with pytest.raises(FormatError, match=":1: the row has block_size 16, asked for 32"):
        read([write_log(row([1], 16, block_size=16))], block_size=32)


def test_floor_and_ceil_of_the_length_both_fit(write_log: WriteLog) -> None:
    assert read([write_log(row([1], 600), row([1, 2], 600))]).num_blocks == 3


def test_a_hash_count_that_fits_neither_names_row_and_block_size(write_log: WriteLog) -> None:
    log = write_log(row([1], 512), row([1, 2, 3], 48))
    with pytest.raises(FormatError) as caught:
        read([log])
    assert caught.value.line == 2
    assert "3 block ids do not fit 48 tokens in blocks of 512 (expected 0 or 1)" in str(
        caught.value
    )
    assert "--block-size 16" in str(caught.value)


def test_an_id_with_two_parents_names_it_and_both_lines(write_log: WriteLog) -> None:
    log = write_log(row([1, 50], 1024), row([1], 512), row([2, 50], 1024))
    with pytest.raises(FormatError, match=r"log\.jsonl:3: block id 50 has another parent.*:1"):
        read([log])


def test_an_id_that_is_a_root_and_a_child_has_two_parents(write_log: WriteLog) -> None:
    with pytest.raises(FormatError, match=r":2: block id 2 has another parent"):
        read([write_log(row([1, 2], 1024), row([2], 512))])


@pytest.mark.parametrize("ids", [[5, 5], [5, 6, 5], [5, 6, 6]])
def test_an_id_twice_in_a_row_is_refused(write_log: WriteLog, ids: list[int]) -> None:
    with pytest.raises(FormatError, match=r":1: block id \d occurs twice in the row"):
        read([write_log(row(ids, 512 * len(ids)))])


def test_a_timestamp_on_some_rows_only_is_refused(write_log: WriteLog) -> None:
    log = write_log(row([1], 5), {"input_length": 5, "hash_ids": [2]})
    with pytest.raises(FormatError, match=":2: no timestamp, but other rows have one"):
        read([log])


def test_a_log_without_time_is_taken_in_its_order(write_log: WriteLog) -> None:
    trace = read([write_log({"input_length": 5, "hash_ids": [2]})])
    assert trace.arrival_s is None
    assert any("no timestamps" in warning for warning in trace.warnings)


def test_rows_without_session_id_among_others_are_sessions_of_their_own(
    write_log: WriteLog,
) -> None:
    log = write_log(row([1], 5, session_id="a"), row([2], 5), row([3], 5), row([4], 5))
    trace = read([log])
    assert trace.session.tolist() == [0, 1, 2, 3]
    assert "3 rows have no session id: each counts as its own session" in trace.warnings


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row([1], -5), "input_length"),
        (row([1], 5.5), "input_length"),  # type: ignore[arg-type]
        (row(["x"], 5), "hash_ids"),  # type: ignore[list-item]
        (row([1], 5, "soon"), "timestamp"),  # type: ignore[arg-type]
        (row([1], 5, block_size=0), "block_size"),
        (row([1], 5, output_length=-1), "output_length"),
        ({"hash_ids": [1]}, "input_length"),
        ([1, 2], "no JSON object"),
        ('{"timestamp": 1, "input_len', "not JSON"),
        ('{"timestamp": NaN, "input_length": 1, "hash_ids": [1]}', "not JSON"),
        ('{"timestamp": 1e400, "input_length": 1, "hash_ids": [1]}', "out of range"),
        ("[" * 100_000, "no JSON object"),
        ('{"a":' * 100_000, "not JSON"),
    ],
)
def test_a_row_that_does_not_fit_is_named_by_line(
    write_log: WriteLog, bad: Any, message: str
) -> None:
    with pytest.raises(FormatError, match=r"log\.jsonl:2: ") as caught:
        read([write_log(row([1], 5), bad)])
    assert message in str(caught.value)


def test_a_partial_last_block_does_not_keep_a_session_apart(write_log: WriteLog) -> None:
    # The second prompt has another third block: the first one's was partial and has grown.
    trace = read([write_log(row([1, 2, 3], 1030), row([1, 2, 4, 5], 1600))])
    assert trace.sessions_inferred
    assert trace.session.tolist() == [0, 0]


def test_a_skipped_row_does_not_decide_the_block_size(write_log: WriteLog) -> None:
    log = write_log(row([1, 2, 3], 5, block_size=99), row([1, 2], 32, block_size=16))
    trace = read_log([log], skip_bad=True).trace
    assert trace.block_size == 16
    assert trace.warnings[0] == "1 bad row was skipped"
