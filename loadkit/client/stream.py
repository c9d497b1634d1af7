"""The load client: prepares requests, sends them on warm connections, times what comes back."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import orjson

from loadkit.client.answer import Response, decode, has_token
from loadkit.client.bodies import CHAT_PATH, MESSAGES_PATH
from loadkit.client.connection import Connection, ConnectionPool
from loadkit.client.endpoint import Endpoint
from loadkit.client.exchange import Exchange
from loadkit.client.foreign import unchanged
from loadkit.client.pump import choose_pump
from loadkit.client.receipt import Receipt
from loadkit.client.secret import Secret
from loadkit.client.timeouts import Timeouts

NO_CONNECTION = "no connection"
ANTHROPIC_VERSION = "2023-06-01"
# A close that crossed our request arrives within a round trip; what fails later may have been read.
CLOSING_S = 0.1
_SAFE = " :/@+=,"
_plain = re.compile(r"[A-Za-z0-9_.~:/@+=,-]+").fullmatch


class StreamClient:
    """Client of one endpoint, shared by all sessions of a process.

    Three steps, so that only the middle one is timed: `prepare` the bytes, `connect`, `send`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        key: Secret | None = None,
        timeouts: Timeouts | None = None,
        kernel_stamps: bool = True,
    ):
        """kernel_stamps: time arrivals by the kernel where it can (Linux), else when we read them."""
        self.endpoint = endpoint
        self.timeouts = timeouts or Timeouts()
        self._pool = ConnectionPool(
            endpoint,
            connect_timeout_s=self.timeouts.connect_s,
            kernel_stamps=kernel_stamps,
        )
        self._pump = choose_pump()
        self._fixed_headers = _fixed_headers(endpoint, key)
        self._key = key

    def prepare(self, body: dict[str, Any], *, session: str, path: str = CHAT_PATH) -> bytes:
        """Request bytes. `session` travels as x-session-id, percent-encoded where it must be."""
        payload = orjson.dumps(body)
        head = (
            f"POST {self.endpoint.base_path}{path} HTTP/1.1\r\n{self._fixed_headers}"
            f"{self._anthropic_headers() if path == MESSAGES_PATH else ''}"
            f"x-session-id: {quoted(session)}\r\n"
            f"Content-Length: {len(payload)}\r\n\r\n"
        )
        return head.encode("ascii") + payload

    def _anthropic_headers(self) -> str:
        version = f"anthropic-version: {ANTHROPIC_VERSION}\r\n"
        return version if self._key is None else f"{version}x-api-key: {self._key.reveal()}\r\n"

    def connect(self) -> Connection:
        """A warm connection. OSError (TimeoutError among them) when the server is not there."""
        return self._pool.acquire()

    def put_back(self, connection: Connection) -> None:
        """A connection from `connect` on which nothing was sent."""
        connection.reusable = True
        self._pool.release(connection)

    @property
    def num_unasked(self) -> int:
        """How often more came on a connection than was asked for. Complete after `close`."""
        return self._pool.num_unasked

    def send(
        self,
        connection: Connection,
        request: bytes,
        receipt: Receipt | None = None,
        *,
        leave_after_s: float | None = None,
    ) -> Response:
        """Send and receive; every fault of server and network is an outcome, not an exception.

        Give a `receipt` of your own to read a partial answer after the greenlet was killed.
        leave_after_s: the user hangs up so long after sending; outcome cancelled, "the user left".
        """
        receipt = receipt or Receipt()
        self.receive(connection, request, receipt, leave_after_s=leave_after_s)
        return self.decode(receipt)

    def receive(
        self,
        connection: Connection,
        request: bytes,
        receipt: Receipt,
        *,
        leave_after_s: float | None = None,
    ) -> None:
        """`send` without the decoding, which `decode` does at any later time: for answers whose
        text no later turn waits for.

        A kept connection that the server was just closing (llama.cpp's does so after a streamed
        answer, without saying) hardly ever carried the request: it goes out again, once, on a new one,
        and the answer is marked `resent`, since the first copy may have been computed all the same.

        One that was closed since `connect`, or on which an answer came that no request had asked
        for, is not used at all.
        """
        was_kept = connection.connect_s is None
        if was_kept and connection.is_stale():
            self._pool.drop(connection)
            try:
                connection = self._pool.open()
            except OSError as error:
                receipt.end("not_sent", f"{NO_CONNECTION}: {error}")
                return
            was_kept = False
        self._exchange(connection, request, receipt, leave_after_s)
        if (
            was_kept
            and receipt.is_unread
            and time.monotonic() - (receipt.sent_at or 0.0) < CLOSING_S
        ):
            with suppress(OSError):
                fresh = self._pool.open()
                receipt.start_over()
                self._exchange(fresh, request, receipt, leave_after_s)

    def _exchange(
        self,
        connection: Connection,
        request: bytes,
        receipt: Receipt,
        leave_after_s: float | None,
    ) -> None:
        exchange = Exchange(
            connection, receipt, self.timeouts, leave_after_s=leave_after_s, has_token=has_token
        )
        try:
            exchange.begin(request)
            self._pump(exchange)
        finally:
            exchange.finish()
            self._pool.release(connection)

    def decode(self, receipt: Receipt) -> Response:
        """What was received so far, however it ended; stars in place of our key and its parts."""
        return decode(receipt, unchanged if self._key is None else self._key.strip_from)

    def close(self) -> None:
        self._pool.close()


def quoted(session: str) -> str:
    """A session's id as it travels: percent-encoded where it must be."""
    return session if _plain(session) else quote(session, safe=_SAFE)


def _fixed_headers(endpoint: Endpoint, key: Secret | None) -> str:
    lines = [
        f"Host: {endpoint.authority}",
        "User-Agent: loadkit",
        "Accept: text/event-stream, application/json",
        "Content-Type: application/json",
        "Accept-Encoding: identity",
        "Connection: keep-alive",
    ]
    if key is not None:
        lines.append(f"Authorization: Bearer {key.reveal()}")
    return "\r\n".join(lines) + "\r\n"
