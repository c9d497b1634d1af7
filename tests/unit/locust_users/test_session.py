"""A session's life, against a client that answers from a script (no sockets, no Locust)."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, cast

import gevent
import msgspec
import pytest
from plans import session

from loadkit.client.answer import Response, decode
from loadkit.client.decoder import ToolCall
from loadkit.client.exchange import USER_LEFT
from loadkit.client.receipt import Receipt
from loadkit.client.stream import StreamClient, quoted
from loadkit.client.usage import Usage
from loadkit.locust_users.session import MAX_WIRE_CHARS, TOOL_RESULT, Lane, wire_id
from loadkit.locust_users.settings import RetryRule, Settings
from loadkit.runs.record import Record
from loadkit.traffic.plan import SessionPlan, Turn

SETTINGS = Settings(url="http://h", model="m", loop="open", run_id="run")


class Killed(BaseException):
    """Stands for a greenlet's kill."""


class KilledConnecting(Killed):
    """One that comes before anything is sent."""


class FakeClient:
    """Answers each send with the next of `answers`: text, an outcome, or an exception to raise."""

    def __init__(self, *answers: Any):
        self.answers = list(answers)
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.sessions: list[str] = []
        self.leaves: list[float | None] = []

    def prepare(self, body: dict[str, Any], *, session: str, path: str) -> bytes:
        self.bodies.append(body)
        self.paths.append(path)
        self.sessions.append(session)
        return b"request"

    def connect(self) -> object:
        if self.answers and isinstance(self.answers[0], OSError | KilledConnecting):
            raise self.answers.pop(0)
        return object()

    def decode(self, receipt: Receipt) -> Response:
        return decode(receipt)

    def send(
        self,
        connection: object,
        request: bytes,
        receipt: Receipt,
        *,
        leave_after_s: float | None = None,
    ) -> Response:
        self.leaves.append(leave_after_s)
        answer = self.answers.pop(0)
        receipt.sent_at = time.monotonic()
        if isinstance(answer, BaseException):
            raise answer
        response = answer if isinstance(answer, Response) else Response("ok", text=answer)
        response.sent_at = receipt.sent_at
        return response


def live(plan: SessionPlan, turn: Turn, reply: str) -> str:
    return reply


def play(
    plan: SessionPlan, *answers: Any, killed: bool = False, settings: Settings = SETTINGS
) -> tuple[list[Record], FakeClient]:
    records: list[Record] = []
    client = FakeClient(*answers)
    lane = Lane(
        cast(StreamClient, client),
        settings,
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


def test_a_session_is_this_runs_own_on_the_wire_and_the_plans_in_the_records() -> None:
    records, client = play(session("s", "a", "b"), "A", "B")
    assert client.sessions == ["s.run", "s.run"]
    assert [record.session for record in records] == ["s", "s"]


def test_a_later_turn_is_intended_think_time_after_the_answer_before_it() -> None:
    records, _ = play(session("s", "a", "b", think_s=0.05), "A", "B")
    assert records[1].intended_s >= 0.05
    assert records[1].schedule_delay_s is not None
    assert records[1].schedule_delay_s >= 0


def test_what_we_do_between_two_turns_is_schedule_delay_and_moves_no_intended_time() -> None:
    """An answer came 0.25 s ago, and we were too busy to notice."""
    came_at = time.monotonic() - 0.25
    records, _ = play(session("s", "a", "b"), Response("ok", text="A", completed_at=came_at), "B")
    assert records[0].completed_s == pytest.approx(records[1].intended_s)
    assert records[1].schedule_delay_s is not None
    assert records[1].schedule_delay_s >= 0.25


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
    lane = Lane(cast(StreamClient, client), SETTINGS, worker=0, start_at=0.0, emit=records.append)
    lane.guard.check("s", [{"role": "user", "content": "something else"}])
    row = msgspec.structs.replace(session("s", "a"), first_turn=3, guarded=False)
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


def turn(text: str, **fields: Any) -> Turn:
    return Turn(({"role": "user", "content": text},), 4, **fields)


def planned(*turns: Turn, **fields: Any) -> SessionPlan:
    return SessionPlan("s", 0.0, turns, "chat", **fields)


def test_a_retry_sends_the_request_again_and_its_answer_takes_the_place() -> None:
    plan = planned(turn("a"), Turn((), 4, retry=True), turn("b"))
    records, _ = play(plan, "bad", "good", "B")
    assert [texts(record) for record in records] == [["a"], ["a"], ["a", "good", "b"]]


def test_a_failure_that_the_plan_tries_again_does_not_end_the_session() -> None:
    plan = planned(turn("a"), Turn((), 4, retry=True), turn("b"))
    records, _ = play(plan, Response("timeout", error="late"), "A", "B")
    assert [record.outcome for record in records] == ["timeout", "ok", "ok"]
    assert texts(records[2]) == ["a", "A", "b"]


def test_a_compaction_replaces_the_history_and_is_counted_not_refused() -> None:
    plan = planned(turn("a"), turn("summary of a", compacts=True), turn("c"))
    records, _ = play(plan, "A", "B", "C")
    assert [texts(record) for record in records] == [
        ["a"],
        ["summary of a"],
        ["summary of a", "B", "c"],
    ]
    assert [record.compacted for record in records] == [False, True, False]


def test_a_user_who_leaves_is_no_failure_and_goes_on_with_what_had_come() -> None:
    left = Response("cancelled", error=USER_LEFT, text="half an ans")
    records, client = play(planned(turn("a", leaves_after_s=0.5), turn("b")), left, "B")
    assert [record.outcome for record in records] == ["cancelled", "ok"]
    assert [record.left for record in records] == [True, False]
    assert client.leaves == [0.5, None]
    assert texts(records[1]) == ["a", "half an ans", "b"]


def test_a_prompt_goes_to_completions_as_it_is_and_leaves_the_history_alone() -> None:
    plan = planned(turn("a", prompt=(1, 2, 3)), turn("b", prompt="text"), turn("c"))
    records, client = play(plan, "A", "B", "C")
    assert [body.get("prompt") for body in client.bodies] == [[1, 2, 3], "text", None]
    assert [record.prompt for record in records] == [[1, 2, 3], "text", None]
    assert client.paths == ["/v1/completions", "/v1/completions", "/v1/chat/completions"]
    assert [texts(record) for record in records] == [[], [], ["c"]]


def test_reasoning_is_echoed_or_stripped_as_the_plan_says() -> None:
    for choice, kept in (("stripped", None), ("echoed", "hmm")):
        answer = Response("ok", text="A", reasoning="hmm")
        records, _ = play(planned(turn("a"), turn("b"), reasoning=choice), answer, "B")
        assert records[0].reasoning == "hmm"
        assert records[1].messages[1].get("reasoning_content") == kept


def test_sub_agents_start_together_and_the_next_turn_waits_for_all_of_them() -> None:
    agents = tuple(
        msgspec.structs.replace(planned(turn(name)), session=name, inherits_history=inherits)
        for name, inherits in (("x", True), ("y", False))
    )
    records, _ = play(planned(turn("a", sub_agents=agents), turn("b")), "A", "X", "Y", "B")
    assert [(record.session, texts(record)) for record in records] == [
        ("s", ["a"]),
        ("x", ["a", "A", "x"]),
        ("y", ["y"]),
        ("s", ["a", "A", "b"]),
    ]


def test_sub_agents_of_a_turn_that_fails_or_never_comes_have_their_records() -> None:
    agent = msgspec.structs.replace(planned(turn("x"), turn("y")), session="x")
    plan = planned(turn("a", sub_agents=(agent,)), turn("b", sub_agents=(agent,)))
    records, _ = play(plan, Response("cut", error="gone"))
    assert Counter((record.session, record.outcome) for record in records) == {
        ("s", "cut"): 1,
        ("s", "not_sent"): 1,
        ("x", "not_sent"): 4,
    }
    assert len(records) == plan.num_requests


def test_a_kill_while_sub_agents_run_leaves_one_record_for_each_turn() -> None:
    agent = msgspec.structs.replace(planned(turn("x"), turn("y")), session="x")
    plan = planned(turn("a", sub_agents=(agent,)), turn("b"))
    records: list[Record] = []

    class Waiting(FakeClient):
        def send(self, *args: Any, **kwargs: Any) -> Response:
            if self.answers:
                return super().send(*args, **kwargs)
            args[2].sent_at = time.monotonic()
            gevent.sleep(1000)
            raise AssertionError

    client = cast(StreamClient, Waiting("A"))
    lane = Lane(client, SETTINGS, worker=0, start_at=0.0, emit=records.append)
    playing = gevent.spawn(lane.play, plan, 0.0, live)
    gevent.sleep(0.01)
    playing.kill()
    assert Counter((record.session, record.outcome) for record in records) == {
        ("s", "ok"): 1,
        ("s", "not_sent"): 1,
        ("x", "cancelled"): 1,
        ("x", "not_sent"): 1,
    }


def retrying(**rule: Any) -> Settings:
    return msgspec.structs.replace(SETTINGS, retries=RetryRule(**rule))


def busy(retry_after_s: float | None = None) -> Response:
    return Response("http_error", status=429, error="full", retry_after_s=retry_after_s)


def test_a_request_that_was_turned_away_waits_as_long_as_it_is_told_and_counts_attempts() -> None:
    records: list[Record] = []
    client = FakeClient(busy(0.02), busy(0.01), "A")
    settings = retrying(max_retries=2)
    lane = Lane(
        cast(StreamClient, client),
        settings,
        worker=0,
        start_at=time.monotonic(),
        emit=records.append,
    )
    lane.play(session("s", "a"), lane.start_at, live)
    (record,) = records
    assert (record.outcome, record.attempts, len(client.bodies)) == ("ok", 3, 1)
    assert record.sent_s is not None
    assert record.sent_s - record.intended_s >= 0.03
    assert record.schedule_delay_s is None  # it was asked to wait, it was not late


def test_a_request_that_was_turned_away_and_then_finds_no_server_was_sent_all_the_same() -> None:
    records: list[Record] = []
    client = cast(StreamClient, FakeClient(busy(0.0), ConnectionRefusedError(111, "refused")))
    settings = retrying(max_retries=2)
    lane = Lane(client, settings, worker=0, start_at=time.monotonic(), emit=records.append)
    lane.play(session("s", "a"), lane.start_at, live)
    (record,) = records
    assert (record.outcome, record.status, record.attempts) == ("http_error", 429, 1)
    assert record.sent_s is not None


def test_a_retry_that_is_killed_while_it_connects_is_no_attempt() -> None:
    records: list[Record] = []
    client = cast(StreamClient, FakeClient(busy(0.0), KilledConnecting()))
    settings = retrying(max_retries=2)
    lane = Lane(client, settings, worker=0, start_at=time.monotonic(), emit=records.append)
    with pytest.raises(Killed):
        lane.play(session("s", "a"), lane.start_at, live)
    (record,) = records
    assert (record.outcome, record.status, record.attempts) == ("http_error", 429, 1)


@pytest.mark.parametrize(
    ("rule", "response", "attempts", "wait_s"),
    [
        ({"max_retries": 0}, busy(), 1, None),
        ({"max_retries": 3}, busy(), 3, 4.0),
        ({"max_retries": 3}, busy(), 4, None),
        ({"max_retries": 3}, busy(7.0), 1, 7.0),
        ({"max_retries": 3}, busy(61.0), 1, None),
        ({"max_retries": 3}, Response("http_error", status=500), 1, None),
        ({"max_retries": 3}, Response("timeout"), 1, None),
    ],
)
def test_the_wait_before_another_attempt(
    rule: dict[str, Any], response: Response, attempts: int, wait_s: float | None
) -> None:
    assert RetryRule(**rule).wait_s(response, attempts) == wait_s


def test_a_wall_clock_that_steps_changes_no_time_of_a_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wall = iter([1e9, 2e9, 0.0, -1e9] * 1000)
    monkeypatch.setattr(time, "time", lambda: next(wall))
    records, _ = play(session("s", "a", "b", think_s=0.02), "A", "B")
    first, second = records
    assert first.sent_s is not None
    assert second.sent_s is not None
    assert 0 <= first.sent_s < second.sent_s < 5
    assert second.sent_s >= second.intended_s >= 0.02


def test_long_session_ids_stay_within_what_servers_take_and_stay_apart() -> None:
    """A run's id of 8 characters and a dot leave 247: longer names end in a digest of the whole."""
    fits, long, alike = "s" * 247, "s" * 248, "s" * 247 + "t"
    assert wire_id(fits, "0123abcd") == f"{fits}.0123abcd"
    ids = [wire_id(name, "0123abcd") for name in (long, alike, "s" * 256)]
    assert [len(each) for each in ids] == [MAX_WIRE_CHARS] * 3
    assert len({*ids, wire_id(fits, "0123abcd")}) == 4
    assert wire_id(long, "0123abcd") == ids[0], "the turns of a session share its id"
    assert wire_id(long, "") == long


@pytest.mark.parametrize("letter", ["ü", "語", "%"])
def test_session_ids_are_measured_as_they_travel(letter: str) -> None:
    """Percent-encoded: 6, 9 and 3 characters for one of the name's."""
    fits, long = letter * 27, letter * 200
    ids = [wire_id(name, "0123abcd") for name in (fits, long, long + letter)]
    assert ids[0] == f"{fits}.0123abcd"
    assert all(len(quoted(each)) <= MAX_WIRE_CHARS for each in ids)
    assert ids[1].startswith(letter * 25)
    assert len(set(ids)) == 3


def test_a_request_that_went_out_twice_says_so_and_is_no_retry() -> None:
    (record,), _ = play(session("s", "a"), Response("ok", text="A", resent=True))
    assert (record.resent, record.attempts) == (True, 1)
    assert record.schedule_delay_s is not None


CALL = ToolCall("c1", "weather", '{"at": "Rome"}')
SENT_CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"at": "Rome"}'},
}


def test_a_live_replys_tool_calls_belong_to_the_history_and_each_has_a_result() -> None:
    calls = [CALL, ToolCall("c2", "time", "")]
    reply = Response("ok", text="", tool_calls=calls, prompt_token_ids=b"1234")
    records, client = play(session("s", "a", "b", "c"), reply, "B", "C")
    said = records[1].messages
    assert [message["role"] for message in said] == ["user", "assistant", "tool", "tool", "user"]
    assert said[1]["content"] is None
    assert [call["id"] for call in said[1]["tool_calls"]] == ["c1", "c2"]
    assert said[1]["tool_calls"][0] == SENT_CALL
    assert said[2] == {"role": "tool", "tool_call_id": "c1", "content": TOOL_RESULT}
    assert records[2].messages[:5] == said, "the guard let it pass: only appended to"
    assert [record.outcome for record in records] == ["ok"] * 3
    assert (records[0].tool_calls, records[0].prompt_token_ids) == (calls, b"1234")
    assert client.bodies[1]["messages"] == said


def test_in_the_anthropic_api_calls_and_results_are_blocks() -> None:
    plan = msgspec.structs.replace(session("s", "a", "b"), api="messages")
    _, client = play(plan, Response("ok", text="Let me look.", tool_calls=[CALL]), "B")
    _, reply, results, asked = client.bodies[1]["messages"]
    use = {"type": "tool_use", "id": "c1", "name": "weather", "input": {"at": "Rome"}}
    assert reply["content"] == [{"type": "text", "text": "Let me look."}, use]
    assert results["content"][0]["tool_use_id"] == "c1"
    assert asked == {"role": "user", "content": "b"}


@pytest.mark.parametrize("arguments", ['{"at": "Ro', "[1]", "Rome"])
def test_a_call_that_no_server_would_take_back_is_left_out(arguments: str) -> None:
    """Cut off by max_tokens, or no object: templates read it as JSON."""
    reply = Response("ok", text="x", tool_calls=[ToolCall("c1", "f", arguments)])
    records, _ = play(session("s", "a", "b"), reply, "B")
    assert records[1].messages[1] == {"role": "assistant", "content": "x"}
    assert len(records[1].messages) == 3


def test_a_recorded_reply_has_no_live_calls() -> None:
    plan = session("s", "a", "b")
    turns = [msgspec.structs.replace(turn, recorded_reply="") for turn in plan.turns]
    plan = msgspec.structs.replace(plan, turns=tuple(turns), replies="recorded")
    records: list[Record] = []
    client = FakeClient(Response("ok", text="", tool_calls=[CALL]), "B")
    lane = Lane(
        cast(StreamClient, client),
        SETTINGS,
        worker=0,
        start_at=time.monotonic(),
        emit=records.append,
    )
    lane.play(plan, lane.start_at, lambda session, turn, reply: turn.recorded_reply or "")
    assert records[1].messages[1] == {"role": "assistant", "content": ""}


WITH_IDS = msgspec.structs.replace(SETTINGS, return_token_ids=True)
UNKNOWN_FIELD = Response("http_error", status=400, error="unknown field return_token_ids")


def asked_for_ids(client: FakeClient) -> list[bool]:
    return ["return_token_ids" in body for body in client.bodies]


def test_a_server_that_refuses_return_token_ids_is_asked_without_it_from_then_on() -> None:
    records, client = play(session("s", "a", "b"), UNKNOWN_FIELD, "A", "B", settings=WITH_IDS)
    assert [record.outcome for record in records] == ["ok", "ok"]
    assert asked_for_ids(client) == [True, False, False]
    assert [record.attempts for record in records] == [2, 1]


def test_a_server_that_took_return_token_ids_once_refuses_for_another_reason() -> None:
    records, client = play(session("s", "a", "b"), "A", UNKNOWN_FIELD, settings=WITH_IDS)
    assert [record.outcome for record in records] == ["ok", "http_error"]
    assert asked_for_ids(client) == [True, True]


def test_a_request_refused_either_way_says_nothing_about_the_field() -> None:
    too_long = Response("http_error", status=400, error="too long")
    records, client = play(session("s", "a"), UNKNOWN_FIELD, too_long, settings=WITH_IDS)
    assert (records[0].outcome, records[0].error) == ("http_error", "too long")
    assert asked_for_ids(client) == [True, False]


def test_how_tokens_and_usage_are_asked_for_is_a_setting() -> None:
    other = msgspec.structs.replace(
        SETTINGS, max_tokens_field="max_completion_tokens", ask_usage=False
    )
    _, client = play(session("s", "a"), "A", settings=other)
    (body,) = client.bodies
    assert body["max_completion_tokens"] == 4
    assert not {"max_tokens", "stream_options"} & body.keys()
    _, client = play(session("s", "a"), "A")
    assert client.bodies[0]["stream_options"] == {"include_usage": True}


def test_a_fault_of_our_own_is_what_the_record_says_not_that_the_run_was_stopped() -> None:
    records: list[Record] = []
    client = FakeClient(ZeroDivisionError("oops"))
    lane = Lane(
        cast(StreamClient, client),
        SETTINGS,
        worker=0,
        start_at=time.monotonic(),
        emit=records.append,
    )
    with pytest.raises(ZeroDivisionError):
        lane.play(session("s", "a", "b"), lane.start_at, live)
    assert [record.outcome for record in records] == ["malformed", "not_sent"]
    assert {record.error for record in records} == {"a fault of loadkit: ZeroDivisionError: oops"}
