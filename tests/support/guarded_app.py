"""A small chat server that answers what it is told to, behind the append-only guard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
from prometheus_client import CollectorRegistry

from loadkit.asgi import AppendOnly

CHAT = "/v1/chat/completions"
JSON = [(b"content-type", b"application/json")]
EVENTS = [(b"content-type", b"text/event-stream")]


class ChatApp:
    """reply: what it answers next. status: of the next answers. before_answer: awaited each time.

    cut: a stream ends after its first chunk. bodies: what it was sent. left: clients that left.
    """

    def __init__(self) -> None:
        self.reply: dict[str, Any] = {"role": "assistant", "content": "hello"}
        self.status, self.cut = 200, False
        self.bodies: list[bytes] = []
        self.before_answer: Callable[[dict[str, Any]], Coroutine[Any, Any, None]] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = await whole_body(receive)
        self.bodies.append(body)
        asked = _loaded(body)
        if self.before_answer:
            await self.before_answer(asked)
        if asked.get("stream") and self.status == 200:
            await self._stream(send)
            return
        answer = {"choices": [{"index": 0, "message": self.reply, "finish_reason": "stop"}]}
        await send({"type": "http.response.start", "status": self.status, "headers": JSON})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    async def _stream(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        for event in stream_of(self.reply)[: 1 if self.cut else None]:
            for half in (event[:9], event[9:]):  # chunks do not end where events do
                await send({"type": "http.response.body", "body": half, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def stream_of(reply: dict[str, Any]) -> list[bytes]:
    """The reply as events of one character each, its tool calls' arguments as well."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": character} for character in reply.get("content") or ""]
    for index, call in enumerate(reply.get("tool_calls") or []):
        function = call["function"]
        opening = {"id": call["id"], "function": {"name": function["name"], "arguments": ""}}
        deltas.append({"tool_calls": [{"index": index} | opening]})
        for piece in function["arguments"]:
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    events = [b"data: " + json.dumps({"choices": [c]}).encode() + b"\n\n" for c in choices]
    return [*events, b"data: [DONE]\n\n"]


class Client:
    """Requests of one test, each with its own event loop unless `together`."""

    def __init__(self, mode: str = "enforce", app: Any = None, **settings: Any) -> None:
        self.app = app or ChatApp()
        self.registry = CollectorRegistry()
        self.guard = AppendOnly(self.app, mode=mode, registry=self.registry, **settings)

    def post(self, messages: Any, session: str | None = "s", **said: Any) -> httpx.Response:
        return self.together((messages, session, said))[0]

    def together(self, *requests: tuple[Any, str | None, dict[str, Any]]) -> list[httpx.Response]:
        async def send() -> list[httpx.Response]:
            transport = httpx.ASGITransport(app=self.guard)  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return list(await asyncio.gather(*(self._request(client, *r) for r in requests)))

        return asyncio.run(send())

    async def _request(
        self, client: httpx.AsyncClient, messages: Any, session: str | None, said: dict[str, Any]
    ) -> httpx.Response:
        headers = dict(said.pop("headers", {}))
        if session is not None:
            headers["x-session-id"] = session
        return await client.post(CHAT, json={"messages": messages} | said, headers=headers)

    def count(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"loadkit:append_only_{name}_total", labels)


async def whole_body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def reply(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _loaded(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
