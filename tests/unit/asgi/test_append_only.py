"""The append-only guard: what it lets through, what it refuses, and what it never touches."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from guarded_app import EVENTS, ChatApp, Client, reply, stream_of, user, whole_body

from loadkit.asgi import AppendOnly
from loadkit.core.errors import InputError

CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q": "é"}'}}
TOOLS = [{"type": "function", "function": {"name": "find"}}]


def refused_at(answer: httpx.Response) -> str:
    """The `param` of a 409, after a look at the rest of the error object."""
    assert answer.status_code == 409, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "conversation_mutated")
    return str(error["param"])


def test_a_conversation_that_grows_passes() -> None:
    client = Client()
    assert client.post([user("a")]).status_code == 200
    assert client.post([user("a"), reply("hello"), user("b")]).status_code == 200
    assert client.count("requests", outcome="extended") == 1
    assert client.count("requests", outcome="first") == 1


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ([user("X"), reply("hello"), user("b")], "messages[0]"),
        ([user("a"), reply("X"), user("b")], "messages[1]"),
        ([user("a"), reply("hello"), user("X"), user("c")], "messages[2]"),
        ([user("a"), reply("hello")], "messages[2]"),
        ([user("a")], "messages[1]"),
    ],
)
def test_a_rewritten_history_is_refused_where_it_changed(changed: Any, param: str) -> None:
    client = Client()
    client.post([user("a"), reply("hello"), user("b")])
    assert refused_at(client.post(changed)) == param
    assert len(client.app.bodies) == 1
    assert client.post([user("a"), reply("hello"), user("b")]).status_code == 200


def test_other_tools_are_a_rewrite_of_everything() -> None:
    client = Client()
    client.post([user("a")], tools=TOOLS)
    assert refused_at(client.post([user("a"), reply("hello"), user("b")])) == "tools"
    assert client.count("rejections", reason="tools") == 1


def test_an_identical_resend_passes_and_is_counted() -> None:
    client = Client()
    for _ in range(3):
        assert client.post([user("a")]).status_code == 200
    assert client.count("requests", outcome="resent") == 2


@pytest.mark.parametrize("stream", [False, True])
def test_the_next_turn_must_hold_the_reply_that_was_given(stream: bool) -> None:
    client = Client()
    client.post([user("a")], stream=stream)
    assert refused_at(client.post([user("a"), reply("Hello"), user("b")])) == "messages[1]"
    assert refused_at(client.post([user("a"), user("b")])) == "messages[1]"
    assert client.count("rejections", reason="reply") == 2
    assert client.post([user("a"), reply("hello"), user("b")]).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_of_tool_calls_may_be_echoed_as_clients_do(stream: bool) -> None:
    client = Client()
    client.app.reply = {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None}
    client.post([user("a")], stream=stream)
    echoed = {"role": "assistant", "tool_calls": [CALL], "content": ""}
    result = {"role": "tool", "tool_call_id": "c1", "content": "found"}
    other = json.loads(json.dumps(echoed).replace("find", "fund"))
    assert refused_at(client.post([user("a"), other, result], stream=stream)) == "messages[1]"
    assert client.post([user("a"), echoed, result], stream=stream).status_code == 200


def test_any_reply_to_a_resent_request_may_be_the_one_that_is_kept() -> None:
    client = Client()
    client.post([user("a")])
    client.app.reply = reply("other")
    client.post([user("a")])
    assert refused_at(client.post([user("a"), reply("third"), user("b")])) == "messages[1]"
    assert client.post([user("a"), reply("hello"), user("b")]).status_code == 200


def test_a_stream_that_was_cut_leaves_the_reply_open() -> None:
    client = Client()
    client.app.cut = True
    client.post([user("a")], stream=True)
    client.app.cut = False
    assert client.post([user("a"), reply("hel"), user("b")]).status_code == 200


def test_what_the_server_did_not_take_is_no_history() -> None:
    client = Client()
    client.app.status = 429
    assert client.post([user("a")]).status_code == 429
    client.app.status = 200
    assert client.post([user("something else")]).status_code == 200
    assert client.count("requests", outcome="first") == 2


def test_conversations_of_another_key_or_id_are_others() -> None:
    client = Client()
    for session, key in (("s", "one"), ("s", "two"), ("t", "one")):
        headers = {"authorization": f"Bearer {key}"}
        assert client.post([user(session + key)], session, headers=headers).status_code == 200
    assert client.count("requests", outcome="first") == 3


def test_the_scheme_and_blanks_of_a_key_make_no_other_conversation() -> None:
    client = Client()
    client.post([user("a")], headers={"authorization": "Bearer k"})
    for same in ("bearer k", "BEARER   k"):
        refused_at(client.post([user("X")], headers={"authorization": same}))
    for other in ("Bearer K", "Basic k", "k"):
        assert client.post([user("X")], headers={"authorization": other}).status_code == 200


@pytest.mark.parametrize("field", ["session_id", "conversation_id"])
def test_the_id_may_stand_in_metadata(field: str) -> None:
    client = Client()
    client.post([user("a")], None, metadata={field: "s"})
    assert refused_at(client.post([user("X")])) == "messages[0]"


def test_without_an_id_nothing_is_held_against_anything() -> None:
    client = Client()
    for text in "ab":
        assert client.post([user(text)], None).status_code == 200
    assert client.count("requests", outcome="no_id") == 2


def test_a_fork_names_its_parent_and_shares_its_beginning() -> None:
    client = Client()
    client.post([user("a"), reply("hello"), user("b")])
    parent = {"headers": {"x-parent-session-id": "s"}}
    fork = [user("a"), reply("hello"), user("c")]
    assert client.post(fork, "s2", **parent).status_code == 200
    assert client.count("requests", outcome="forked") == 1
    assert refused_at(client.post([user("Z")], "s3", **parent)) == "messages[0]"
    assert client.post([user("a")], "s4", headers={"x-parent-session-id": "who"}).is_success


def test_observe_counts_and_lets_everything_through() -> None:
    client = Client("observe")
    for messages in ([user("a")], [user("X")], [user("X"), reply("hello"), user("c")]):
        assert client.post(messages).status_code == 200
    assert client.count("violations", reason="message") == 1
    assert client.count("rejections", reason="message") == 0
    assert client.count("requests", outcome="extended") == 1


def test_off_looks_at_nothing() -> None:
    client = Client("off")
    assert client.post([user("a")]).status_code == client.post([user("X")]).status_code == 200
    assert client.count("requests", outcome="first") is None
    assert len(client.guard.histories) == 0


def test_mode_and_secret_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADKIT_APPEND_ONLY", "enforced")
    with pytest.raises(InputError, match="LOADKIT_APPEND_ONLY"):
        AppendOnly(app=ChatApp())
    monkeypatch.setenv("LOADKIT_APPEND_ONLY", "off")
    assert AppendOnly(app=ChatApp()).mode == "off"


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"messages": 1}', b'{"messages": [[[1]]]}', b""])
def test_a_body_that_is_no_chat_reaches_the_server_as_it_is(body: bytes) -> None:
    client = Client()

    async def send() -> int:
        transport = httpx.ASGITransport(app=client.guard)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            answer = await http.post(
                "/v1/chat/completions", content=body, headers={"x-session-id": "s"}
            )
            return answer.status_code

    assert asyncio.run(send()) == 200
    assert client.app.bodies == [body]


def test_a_body_over_the_cap_is_refused_when_enforcing_and_passed_whole_when_observing() -> None:
    long = [user("a" * 200)]
    assert Client(max_body_bytes=100).post(long).status_code == 413
    observing = Client("observe", max_body_bytes=100)
    assert observing.post(long).status_code == 200
    assert json.loads(observing.app.bodies[0])["messages"] == long


def test_a_stream_passes_chunk_by_chunk_before_the_server_goes_on() -> None:
    """Each chunk is with the client before the application makes the next one."""
    sent: list[bytes] = []
    events = stream_of(reply("hello"))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        for number, event in enumerate(events):
            await send({"type": "http.response.body", "body": event, "more_body": True})
            assert sent == events[: number + 1]

    async def receive() -> Any:
        body = json.dumps({"messages": [user("a")], "stream": True}).encode()
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            sent.append(message["body"])

    guard = Client(app=app).guard
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [(b"x-session-id", b"s")],
    }
    asyncio.run(guard(scope, receive, send))
    assert sent == events


def test_of_two_different_requests_at_once_the_first_admitted_wins() -> None:
    client = Client()
    both_are_in = asyncio.Barrier(2)

    async def meet(asked: dict[str, Any]) -> None:
        await both_are_in.wait()

    client.app.before_answer = meet
    answers = client.together(([user("a")], "s", {}), ([user("b")], "s", {}))
    assert sorted(a.status_code for a in answers) == [200, 409]
    assert client.count("rejections", reason="race") == 1


def test_identical_requests_at_once_all_pass() -> None:
    client = Client()
    answers = client.together(*[([user("a")], "s", {"stream": True}) for _ in range(4)])
    assert [a.status_code for a in answers] == [200] * 4
    assert refused_at(client.post([user("a"), reply("no"), user("b")])) == "messages[1]"


def test_the_loser_of_a_race_is_told_that_its_client_left() -> None:
    """So a server that listens for it stops computing what nobody will read."""
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = json.loads(await whole_body(receive))
        if body["messages"][0]["content"] == "slow":
            await first_is_done.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if body["messages"][0]["content"] == "slow":
            heard.append((await receive())["type"])
        await send({"type": "http.response.body", "body": b""})
        first_is_done.set()

    first_is_done = asyncio.Event()
    client = Client(app=app)
    answers = client.together(([user("slow")], "s", {}), ([user("fast")], "s", {}))
    assert [a.status_code for a in answers] == [409, 200]
    assert heard == ["http.disconnect"]
