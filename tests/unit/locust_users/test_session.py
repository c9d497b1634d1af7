"""A session's life, against a client that answers from a script (no sockets, no Locust)."""

from __future__ import annotations

import time
from typing import Any, cast

import msgspec
import pytest
from plans import session

from loadkit.client.answer import Response, decode
from loadkit.client.exchange import Receipt
from loadkit.client.stream import StreamClient
from loadkit.client.usage import Usage
from loadkit.locust_users.session import Lane, request_body
from loadkit.locust_users.settings import Settings
from loadkit.runs.record import Record
from loadkit.traffic.plan import SessionPlan, Turn

SETTINGS = Settings(url="http://h", model="m", kind="conversation", loop="open")


class Killed(BaseException):
    """Stands for a greenlet's kill."""


class FakeClient:
    """Answers each send with the next of `answers`: text, an outcome, or an exception to raise."""

    def __init__(self, *answers: Any):
        self.answers = list(answers)
        self.bodies: list[dict[str, Any]] = []

    def prepare(self, body: dict[str, Any], *, session: str) -> bytes:
        self.bodies.append(body)
        return b"request"

    def connect(self) -> object:
        if self.answers and isinstance(self.answers[0], OSError):
            raise self.answers.pop(0)
        return object()

    def decode(self, receipt: Receipt) -> Response:
        return decode(receipt)

    def send(self, connection: object, request: bytes, receipt: Receipt) -> Response:
        answer = self.answers.pop(0)
        receipt.sent_at = time.monotonic()
        if isinstance(answer, BaseException):
            raise answer
        response = answer if isinstance(answer, Response) else Response("ok", text=answer)
        response.sent_at = receipt.sent_at
        return response


def live(plan: SessionPlan, turn: Turn, reply: str) -> str:
    return reply


def play(plan: SessionPlan, *answers: Any, killed: bool = False) -> tuple[list[Record], FakeClient]:
    records: list[Record] = []
    client = FakeClient(*answers)
    lane = Lane(
        cast(StreamClient, client),
        SETTINGS,
        worker=3,
        start_at=time.monotonic(),
        emit=records.append,
    )
    if killed:
        with pytest.raises(Killed):
            lane.play(plan, lane.start_at, live)
    else:
        lane.play(plan, lane.start_at, live)
    return records, client


def texts(record: Record) -> list[str]:
    return [message["content"] for message in record.messages]


def test_real_replies_are_appended_and_history_is_never_rewritten() -> None:
    records, client = play(session("s", "a", "b", "c"), "A", "B", "C")
    assert [texts(record) for record in records] == [
        ["a"],
        ["a", "A", "b"],
        ["a", "A", "b", "B", "c"],
    ]
    assert [body["messages"] for body in client.bodies] == [record.messages for record in records]
    assert records[1].messages[1] == {"role": "assistant", "content": "A"}
    assert [(record.turn, record.worker, record.outcome) for record in records] == [
        (0, 3, "ok"),
        (1, 3, "ok"),
        (2, 3, "ok"),
    ]


def test_a_later_turn_is_intended_think_time_after_the_answer_before_it() -> None:
    records, _ = play(session("s", "a", "b", think_s=0.05), "A", "B")
    assert records[1].intended_s >= 0.05
    assert records[1].schedule_delay_s is not None
    assert records[1].schedule_delay_s >= 0


def test_a_failed_turn_ends_the_session_and_the_rest_is_not_sent_with_the_reason() -> None:
    cut = Response("cut", error="connection lost")
    records, client = play(session("s", "a", "b", "c", "d"), "A", cut)
    assert [record.outcome for record in records] == ["ok", "cut", "not_sent", "not_sent"]
    assert records[3].error == "turn 1 of this session ended as cut"
    assert records[3].messages == []
    assert records[3].turn == 3
    assert len(client.bodies) == 2


def test_no_connection_is_not_sent() -> None:
    records, _ = play(session("s", "a", "b"), ConnectionRefusedError(111, "refused"))
    assert [record.outcome for record in records] == ["not_sent", "not_sent"]
    assert records[0].error is not None
    assert records[0].error.startswith("no connection: ")
    assert records[0].sent_s is None


def test_a_kill_in_flight_is_cancelled_and_every_turn_still_has_one_record() -> None:
    records, _ = play(session("s", "a", "b", "c"), "A", Killed(), killed=True)
    assert [(record.turn, record.outcome) for record in records] == [
        (0, "ok"),
        (1, "cancelled"),
        (2, "not_sent"),
    ]
    assert records[1].sent_s is not None
    assert texts(records[1]) == ["a", "A", "b"]


def test_a_killed_turn_says_why_the_run_was_stopped() -> None:
    records: list[Record] = []
    client = FakeClient(Killed())
    lane = Lane(cast(StreamClient, client), SETTINGS, worker=0, start_at=0.0, emit=records.append)
    lane.stop_reason = "max_duration_s (60 s) was reached"
    with pytest.raises(Killed):
        lane.play(session("s", "a", "b"), lane.start_at, live)
    assert [(record.outcome, record.error) for record in records] == [
        ("cancelled", "max_duration_s (60 s) was reached"),
        ("not_sent", "max_duration_s (60 s) was reached"),
    ]


def test_a_rewritten_history_is_refused_before_it_is_sent() -> None:
    """The same session id with another first message: not an extension of what was sent."""
    records: list[Record] = []
    client = FakeClient("A", "B")
    lane = Lane(
        cast(StreamClient, client),
        SETTINGS,
        worker=0,
        start_at=time.monotonic(),
        emit=records.append,
    )
    lane.guard.check("s", [{"role": "user", "content": "something else"}])
    lane.play(session("s", "a", "b"), lane.start_at, live)
    assert [record.outcome for record in records] == ["not_sent", "not_sent"]
    assert records[0].error == ("append-only history rewritten at message 0 (of 1 already sent)")
    assert lane.guard.num_refused == 1
    assert client.bodies == []


def test_a_replayed_log_that_rewrites_its_history_is_sent_as_it_is() -> None:
    records: list[Record] = []
    client = FakeClient("A")
    settings = msgspec.structs.replace(SETTINGS, kind="replay")
    lane = Lane(cast(StreamClient, client), settings, worker=0, start_at=0.0, emit=records.append)
    lane.guard.check("s", [{"role": "user", "content": "something else"}])
    row = msgspec.structs.replace(session("s", "a"), first_turn=3)
    lane.play(row, lane.start_at, live)
    assert [(record.outcome, record.turn) for record in records] == [("ok", 3)]


def test_a_session_that_never_starts_has_a_record_per_turn() -> None:
    records: list[Record] = []
    lane = Lane(
        cast(StreamClient, FakeClient()), SETTINGS, worker=0, start_at=1.0, emit=records.append
    )
    lane.skip(session("s", "a", "b", start_s=2.5), "too late")
    assert [(record.intended_s, record.error) for record in records] == [(2.5, "too late")] * 2


def test_usage_goes_into_the_record_and_unknown_stays_none() -> None:
    usage = Usage(10, 2, 8, {"replay": 8})
    records, _ = play(session("s", "a"), Response("ok", usage=usage, text="x"))
    assert (records[0].prompt_tokens, records[0].cached_tokens) == (10, 8)
    assert records[0].server_split == {"replay": 8}
    records, _ = play(session("s", "a"), "x")
    assert records[0].cached_tokens is None


def test_flags_that_only_some_servers_know_are_left_out() -> None:
    plan = session("s", "a")
    body = request_body(SETTINGS, plan, [], 4)
    assert body["stream_options"] == {"include_usage": True}
    assert {"return_token_ids", "ignore_eos", "tools"} & set(body) == set()
    knowing = Settings(
        url="u", model="m", kind="k", loop="open", return_token_ids=True, ignore_eos=True
    )
    assert request_body(knowing, plan, [], 4)["return_token_ids"] is True
