"""The append-only guard in front of the reference server's own routes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from http_calls import make_service

from reference_server.api import make_app
from reference_server.keys import Keys
from reference_server.service import Service

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "hello world"}


@pytest.fixture
def service() -> Iterator[Service]:
    made = make_service(num_blocks=200)
    yield made
    assert made.engine is not None
    made.engine.stop()


def talk(service: Service, mode: str, stream: bool) -> tuple[list[int], str]:
    """A first turn, a changed reply, the reply as it was: their status codes, and /metrics."""

    async def scenario() -> tuple[list[int], str]:
        transport = httpx.ASGITransport(make_app(service, append_only=mode))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:

            async def send(*messages: Any, stream: bool = False) -> httpx.Response:
                body = {"messages": messages, "max_tokens": 8, "temperature": 0, "stream": stream}
                return await client.post(CHAT, json=body, headers={"x-session-id": "s"})

            whole = (await send(USER)).json()["choices"][0]["message"]
            answers = [
                await send(USER, stream=stream),
                await send(USER, whole | {"content": whole["content"] + " "}, USER),
                await send(USER, whole, USER),
            ]
            metrics = (await client.get("/metrics")).text
        return [answer.status_code for answer in answers], metrics

    return asyncio.run(scenario())


@pytest.mark.parametrize("stream", [False, True])
def test_enforced_a_changed_reply_is_refused_and_the_metric_says_so(
    service: Service, stream: bool
) -> None:
    """Streamed greedily, the reply is the same: both belong to the request that was resent."""
    codes, metrics = talk(service, "enforce", stream)
    assert codes == [200, 409, 200]
    assert 'loadkit:append_only_rejections_total{reason="reply"} 1.0' in metrics
    assert 'loadkit:append_only_requests_total{outcome="resent"} 1.0' in metrics


def test_observed_it_passes_and_nothing_is_called_a_rejection(service: Service) -> None:
    codes, metrics = talk(service, "observe", stream=False)
    assert codes == [200, 200, 200]
    assert 'loadkit:append_only_violations_total{reason="reply"} 1.0' in metrics
    assert 'loadkit:append_only_rejections_total{reason="reply"} 0.0' in metrics


def test_off_there_is_no_such_metric(service: Service) -> None:
    codes, metrics = talk(service, "off", stream=False)
    assert codes == [200, 200, 200]
    assert "append_only" not in metrics


def test_who_has_no_key_is_told_so_before_the_guard_looks_or_counts() -> None:
    """A rewrite, a body over the cap and one that never ends are all 401, and leave no trace."""
    service = make_service(Keys(("k",)))
    app = make_app(service, append_only="enforce")
    rewrite = json.dumps({"messages": [USER | {"content": "other"}]}).encode()
    first = json.dumps({"messages": [USER], "max_tokens": 2}).encode()

    async def scenario() -> list[int]:
        bearer = [(b"authorization", b"Bearer k")]
        return [
            await post(app, first, bearer),
            await post(app, rewrite, bearer),
            await post(app, rewrite, []),
            await post(app, rewrite, [(b"authorization", b"Bearer other")]),
            await post(app, rewrite, [*bearer, (b"authorization", b"Bearer other")]),
            await post(app, None, []),
        ]

    before = service.metrics.registry.get_sample_value
    assert asyncio.run(scenario()) == [200, 409, 401, 401, 401, 401]
    assert before("loadkit:append_only_violations_total", {"reason": "message"}) == 1
    assert before("loadkit:append_only_requests_total", {"outcome": "unreadable"}) == 0
    assert service.metrics.total("loadkit:refused_requests", status="401") == 4
    assert service.engine is not None
    service.engine.stop()


def test_one_caller_is_one_to_the_guard_however_the_header_is_written() -> None:
    """What the key check takes for the same key is the same conversation's; another key is not."""
    service = make_service(Keys(("k", "other")))
    app = make_app(service, append_only="enforce")

    async def scenario() -> list[int]:
        bodies = [
            json.dumps({"messages": [USER | {"content": text}], "max_tokens": 2}).encode()
            for text in ("one", "two", "three", "four")
        ]
        written = (b"Bearer k", b"bearer k", b"BEARER   k ", b"Bearer other")
        return [
            await post(app, body, [(b"authorization", value)])
            for body, value in zip(bodies, written, strict=True)
        ]

    assert asyncio.run(scenario()) == [200, 409, 409, 200]
    assert service.engine is not None
    service.engine.stop()


def test_a_newline_behind_the_path_is_no_way_around_the_guard() -> None:
    """Starlette's routes match it."""
    service = make_service()
    app = make_app(service, append_only="enforce")
    bodies = [
        json.dumps({"messages": [USER | {"content": text}], "max_tokens": 2}).encode()
        for text in ("one", "other")
    ]

    async def scenario() -> list[int]:
        return [await post(app, body, [], path=CHAT + "\n") for body in bodies]

    assert asyncio.run(scenario()) == [200, 409]
    assert service.engine is not None
    service.engine.stop()


async def post(app: Any, body: bytes | None, headers: list[Any], path: str = CHAT) -> int:
    """The status of a chat request of conversation s. body None: must not be read."""
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        assert body is not None, "the body was read"
        return parts.pop() if parts else await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    parts = [{"type": "http.request", "body": body, "more_body": False}]
    named = [(b"host", b"localhost"), (b"x-session-id", b"s"), *headers]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": named,
    }
    await app(scope, receive, send)
    return statuses[0]
