"""The load client: prepares requests, sends them on warm connections, times what comes back."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import orjson

from loadkit.client.answer import Response, decode
from loadkit.client.connection import Connection, ConnectionPool
from loadkit.client.endpoint import Endpoint
from loadkit.client.exchange import Receipt, exchange
from loadkit.client.secret import Secret

CHAT_PATH = "/v1/chat/completions"


class StreamClient:
    """Client of one endpoint, shared by all sessions of a process.

    Three steps, so that only the middle one is timed: `prepare` the bytes, `connect`, `send`.
    """

    def __init__(self, endpoint: Endpoint, *, key: Secret | None = None, timeout_s: float = 120.0):
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self._pool = ConnectionPool(endpoint)
        self._fixed_headers = _fixed_headers(endpoint, key)
        self._key = key

    def prepare(self, body: dict[str, Any], *, session: str, path: str = CHAT_PATH) -> bytes:
        """Request bytes. `session` travels as x-session-id, percent-encoded where it must be."""
        payload = orjson.dumps(body)
        head = (
            f"POST {self.endpoint.base_path}{path} HTTP/1.1\r\n{self._fixed_headers}"
            f"x-session-id: {quote(session, safe=' :/@+=,')}\r\n"
            f"Content-Length: {len(payload)}\r\n\r\n"
        )
        return head.encode("ascii") + payload

    def connect(self) -> Connection:
        """A warm connection. OSError (TimeoutError among them) when the server is not there."""
        return self._pool.acquire()

    def send(
        self, connection: Connection, request: bytes, receipt: Receipt | None = None
    ) -> Response:
        """Send and receive; every fault of server and network is an outcome, not an exception.

        Give a `receipt` of your own to read a partial answer after the greenlet was killed.
        """
        receipt = receipt or Receipt()
        connect_s = connection.connect_s
        try:
            exchange(connection, request, receipt, time.monotonic() + self.timeout_s)
        finally:
            self._pool.release(connection)
        response = self.decode(receipt)
        response.connect_s = connect_s
        return response

    def decode(self, receipt: Receipt) -> Response:
        """What was received so far, however it ended; an error that repeats our key has stars."""
        response = decode(receipt)
        if self._key is not None and response.error is not None:
            response.error = self._key.strip_from(response.error)
        return response

    def close(self) -> None:
        self._pool.close()


def _fixed_headers(endpoint: Endpoint, key: Secret | None) -> str:
    lines = [
        f"Host: {endpoint.authority}",
        "User-Agent: loadkit",
        "Accept: text/event-stream, application/json",
        "Content-Type: application/json",
        "Connection: keep-alive",
    ]
    if key is not None:
        lines.append(f"Authorization: Bearer {key.reveal()}")
    return "\r\n".join(lines) + "\r\n"
