"""Agent sessions with block ids of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadkit.core.errors import FormatError
from loadkit.core.trace import UNKNOWN, Trace
from loadkit.traces import read_trace

WriteLog = Callable[..., Path]


def read(*paths: Path, **options: Any) -> Trace:
    return read_trace(paths, format="weka", **options)


def request(at_s: float, ids: list[int], tokens: int | None = None, **more: Any) -> dict[str, Any]:
    length = 64 * len(ids) + 5 if tokens is None else tokens
    return {"t": at_s, "type": "n", "in": length, "hash_ids": ids, **more}


def session(name: str, *requests: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": name, "hash_id_scope": "local", "requests": list(requests), **more}


def test_full_blocks_of_64_have_ids_that_are_local_to_the_session(write_log: WriteLog) -> None:
    log = write_log(
        session("a", request(0, [1, 2], out=7), request(3, [1, 2, 3])),
        session("b", request(0, [1, 2])),
    )
    trace = read(log)
    assert trace.block_size == 64
    assert trace.arrival_s is not None
    assert trace.arrival_s.tolist() == [0, 0, 3]
    assert trace.session.tolist() == [0, 1, 0]
    assert trace.block_ids.tolist() == [0, 1, 2, 3, 0, 1, 4]
    assert trace.output_tokens.tolist() == [7, UNKNOWN, UNKNOWN]
    assert len(trace.warnings) == 1
    assert trace.warnings[0].startswith("every session's clock starts at 0")


def test_ids_of_global_scope_are_shared(write_log: WriteLog) -> None:
    log = write_log(
        session("a", request(0, [1]), hash_id_scope="global"),
        session("b", request(0, [1]), hash_id_scope="global"),
    )
    assert read(log).block_ids.tolist() == [0, 0]


def test_subagents_belong_to_the_session_and_start_at_their_time(write_log: WriteLog) -> None:
    subagent = {"t": 10, "type": "subagent", "requests": [request(0, [1, 9]), request(4, [1, 9])]}
    log = write_log(session("a", request(0, [1]), subagent, request(12, [1, 2])))
    trace = read(log)
    assert trace.arrival_s is not None
    assert trace.arrival_s.tolist() == [0, 10, 12, 14]
    assert trace.session.tolist() == [0, 0, 0, 0]
    assert trace.block_ids.tolist() == [0, 0, 1, 0, 2, 0, 1]
    assert trace.warnings == ()


def test_sessions_of_one_id_are_kept_apart_and_counted(write_log: WriteLog) -> None:
    trace = read(write_log(session("a", request(0, [1])), session("a", request(0, [1]))))
    assert trace.num_sessions == 2
    assert "1 sessions have the id of an earlier one: kept apart" in trace.warnings


def test_the_block_size_of_the_sessions_counts(write_log: WriteLog) -> None:
    assert read(write_log(session("a", request(0, [1], 16), block_size=16))).block_size == 16


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"t": 0, "type": "n"}, "no `in` or no `hash_ids`"),
        (request(0, [1], 640), "1 block ids do not fit 640 tokens"),
        (request(0, [-1]), "local block id"),
        (request(0, [2**40]), "local block id"),
        (request(0, [1], -1), "in"),
        ({"in": 64, "hash_ids": [1]}, "t"),
    ],
)
def test_a_request_that_does_not_fit_is_named_by_its_sessions_line(
    write_log: WriteLog, bad: dict[str, Any], message: str
) -> None:
    log = write_log(session("a", request(0, [1])), session("b", request(0, [1]), bad))
    with pytest.raises(FormatError, match=r"log\.jsonl:2: ") as caught:
        read(log)
    assert message in str(caught.value)


def test_a_session_with_two_parents_for_an_id_is_refused(write_log: WriteLog) -> None:
    log = write_log(session("a", request(0, [1, 2]), request(1, [3, 2])))
    with pytest.raises(FormatError, match="has another parent"):
        read(log)
