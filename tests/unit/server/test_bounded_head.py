"""What stands around a body is bounded; bodies and many requests on a connection are not touched."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import pytest
from uvicorn.server import ServerState

from reference_server.bounded_head import MAX_HEAD_BYTES, BoundedHead
from reference_server.listening import http_config

PART = b"a" * 1024
HEAD = b"POST / HTTP/1.1\r\nhost: localhost\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


class Wire(asyncio.Transport):
    """What the server wrote, and whether it hung up."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.is_closed = b"", False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        return None

    def resume_reading(self) -> None:
        return None


async def app(scope: Any, receive: Any, send: Any) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d bytes" % size})


def answered(parts: Iterator[bytes], limit: int) -> tuple[Wire, int]:
    """The wire after at most so many parts, and how many were taken before it was hung up."""

    async def scenario() -> tuple[Wire, int]:
        config = http_config(app, drain_s=0, lifespan="off")
        config.load()
        wire, state = Wire(), ServerState()
        protocol = BoundedHead(config, state, {}, asyncio.get_running_loop())
        protocol.connection_made(wire)
        num = 0
        for num, part in enumerate(parts, 1):
            protocol.data_received(part)
            await asyncio.sleep(0)
            if wire.is_closed or num == limit:
                break
        for _ in range(20):
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        await asyncio.gather(*state.tasks)
        return wire, num

    return asyncio.run(scenario())


def after(start: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield start
    yield from rest


@pytest.mark.parametrize(
    ("start", "part"),
    [
        (HEAD + b"x: ", PART),
        (HEAD, b"x: 1\r\n" * 200),
        (b"GET /", PART),
        (CHUNKED + b"1\r\na\r\n0\r\nx: ", PART),
        (CHUNKED + b"1\r\na\r\n0\r\n", b"x: 1\r\n" * 200),
    ],
)
def test_headers_and_trailers_without_end_are_a_400_soon(start: bytes, part: bytes) -> None:
    wire, num = answered(after(start, repeat(part)), limit=1000)
    assert b"400 Bad Request" in wire.written
    assert num <= MAX_HEAD_BYTES // len(part) + 3


def test_a_body_of_any_size_passes() -> None:
    chunk = b"400\r\n" + PART + b"\r\n"
    parts = [CHUNKED, *[chunk] * 200, b"0\r\n\r\n"]
    wire, _ = answered(iter(parts), limit=1000)
    assert wire.written.endswith(b"204800 bytes\r\n0\r\n\r\n")


def test_many_requests_on_one_connection_add_up_to_nothing() -> None:
    """Each head is 2 KiB, and comes in two parts."""
    half = HEAD + b"x: " + PART
    parts = [half, PART + b"\r\ncontent-length: 0\r\n\r\n"] * 100
    wire, num = answered(iter(parts), limit=1000)
    assert num == 200
    assert wire.written.count(b"200 OK") == 100


def test_an_upgrade_to_a_websocket_is_answered_as_the_request_that_it_is() -> None:
    """Neither key nor site would be checked of a WebSocket."""
    upgrade = b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
    key = b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    wire, _ = answered(iter([b"GET / HTTP/1.1\r\nhost: localhost\r\n" + upgrade + key]), limit=1)
    assert wire.written.startswith(b"HTTP/1.1 200 OK")
