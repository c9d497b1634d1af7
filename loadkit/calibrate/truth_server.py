"""A streaming server that knows when it sent each token. Shares no code with the client it judges.

Run as a program, `python -m loadkit.calibrate.truth_server`: prints its port on 127.0.0.1 and serves
until its standard input ends. Any POST is answered with `max_tokens` events of about 200 bytes,
`x-gap-ms` (20) apart. `GET /truth` returns {session: CLOCK_MONOTONIC at which its first token was handed
to the socket} and forgets it; that clock is the same in all processes of a machine.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _event(body: dict[str, Any]) -> bytes:
    data = b"data: " + json.dumps(body).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


_BASE = {
    "id": "chatcmpl-0123456789abcdef",
    "object": "chat.completion.chunk",
    "created": 1234567890,
    "model": "truth",
}
TOKEN = _event(_BASE | {"choices": [{"index": 0, "delta": {"content": " word"}}]})
FINISH = _event(_BASE | {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class TruthServer(asyncio.Protocol):
    """One connection; one request at a time on it."""

    truth: dict[str, float] = {}  # noqa: RUF012  # of all connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        headers = _headers(head)
        if len(body) >= int(headers.get("content-length", "0")):
            self._data = b""
            if head.startswith(b"GET "):
                self._tell()
            else:
                self._stream(headers, json.loads(body))

    def _tell(self) -> None:
        body = json.dumps(self.truth).encode()
        self.truth.clear()
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def _stream(self, headers: dict[str, str], request: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        gap_s = float(headers.get("x-gap-ms", "20")) / 1000
        session, left = headers.get("x-session-id", ""), int(request["max_tokens"])
        write: Callable[[bytes], None] = self._transport.write
        write(HEAD)
        due = loop.time() + gap_s

        def token() -> None:
            nonlocal left, due
            self.truth.setdefault(session, time.monotonic())
            write(TOKEN)
            left -= 1
            due += gap_s
            if left and not self._transport.is_closing():
                loop.call_at(due, token)
            else:
                write(FINISH + END)

        loop.call_at(due, token)


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(TruthServer, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    from loadkit.calibrate.limits import allow_many_files

    allow_many_files()
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve())
    else:
        uvloop.run(serve())


if __name__ == "__main__":
    main()
