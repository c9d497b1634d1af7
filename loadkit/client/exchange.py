"""One request and its answer on the wire: stamp every receive first, parse all of it later."""

from __future__ import annotations

import re
import time
from typing import Literal

import httptools

from loadkit.client.connection import Connection
from loadkit.client.timeouts import Timeouts

RECEIVE_BYTES = 1 << 16
MAX_ANSWER_BYTES = 64 << 20
# A JSON string cannot hold a raw line break, so this is never text of the model.
_DONE_AT_END = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]\s*$")
_DONE_WINDOW = 64
USER_LEFT = "the user left"

End = Literal["complete", "closed", "cut", "timeout", "malformed", "cancelled"]


class Receipt:
    """Raw bytes of one answer and the monotonic time at which each piece was received.

    `ended` is None while receiving, then: complete (HTTP framing says so, or a `[DONE]` ended a
    close-delimited stream), closed (end of a close-delimited body), or what went wrong. The lower
    methods are httptools' callbacks.
    """

    def __init__(self) -> None:
        self.sent_at: float | None = None
        self.now = 0.0
        self.stamps: list[float] = []
        self.pieces: list[bytes] = []
        self.num_bytes = 0
        self.status: int | None = None
        self.content_type = b""
        self.retry_after: bytes | None = None
        self.date: bytes | None = None
        self.framed = False
        self.ended: End | None = None
        self.error: str | None = None
        self._tail = b""

    def end(self, how: End, error: str | None = None) -> None:
        """Set how the answer ended; the first cause wins."""
        if self.ended is None:
            self.ended, self.error = how, error

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        if key == b"content-type":
            self.content_type = value.lower()
        elif key in (b"content-length", b"transfer-encoding"):
            self.framed = True
        elif key == b"retry-after":
            self.retry_after = value
        elif key == b"date":
            self.date = value

    def on_body(self, body: bytes) -> None:
        self.stamps.append(self.now)
        self.pieces.append(body)
        if not self.framed:
            self._tail = (self._tail + body[-_DONE_WINDOW:])[-_DONE_WINDOW:]
            if _DONE_AT_END.search(self._tail):
                self.end("complete")


class _Parser:
    """httptools parser of one answer; skips 1xx interim answers."""

    def __init__(self, receipt: Receipt):
        self.receipt = receipt
        self.keep_alive = False
        self.on_header = receipt.on_header
        self.on_body = receipt.on_body
        self._parser = httptools.HttpResponseParser(self)  # looks the callbacks up at once

    def on_headers_complete(self) -> None:
        self.receipt.status = self._parser.get_status_code()

    def on_message_complete(self) -> None:
        if self.receipt.status is not None and self.receipt.status >= 200:
            self.keep_alive = bool(self._parser.should_keep_alive())  # only known right now
            self.receipt.end("complete")

    def feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.receipt.end("malformed", f"not HTTP: {error}")


def exchange(
    connection: Connection,
    request: bytes,
    receipt: Receipt,
    timeouts: Timeouts,
    leave_after_s: float | None = None,
) -> None:
    """Send a prepared request and receive until the answer ends; `receipt` says how.

    leave_after_s: the user hangs up so long after sending. Never raises for what a server or
    network does; a greenlet's kill passes through.
    """
    parser = _Parser(receipt)
    limits = _Limits(receipt, timeouts, leave_after_s)
    try:
        receipt.sent_at = receipt.now = time.monotonic()
        connection.sock.settimeout(timeouts.total_s)
        connection.sock.sendall(request)
        while receipt.ended is None:
            _receive(connection, parser, limits)
    except TimeoutError:
        limits.pass_by()
    except OSError as error:
        receipt.end("cut", f"connection lost: {error}")
    connection.reusable = receipt.ended == "complete" and parser.keep_alive


class _Limits:
    """The deadlines of one request."""

    def __init__(self, receipt: Receipt, timeouts: Timeouts, leave_after_s: float | None):
        self.receipt, self.timeouts, self.leave_after_s = receipt, timeouts, leave_after_s

    def next(self) -> tuple[float, End, str]:
        """(monotonic time, how it ends then, why) of the first that will pass."""
        sent_at, timeouts = self.receipt.sent_at or 0.0, self.timeouts
        ends: list[tuple[float, End, str]] = [
            (
                sent_at + timeouts.total_s,
                "timeout",
                f"no complete answer within {timeouts.total_s:g} s",
            )
        ]
        if timeouts.idle_s is not None:
            ends.append(
                (
                    self.receipt.now + timeouts.idle_s,
                    "timeout",
                    f"silent for {timeouts.idle_s:g} s",
                )
            )
        if timeouts.first_token_s is not None and not self.receipt.pieces:
            ends.append(
                (
                    sent_at + timeouts.first_token_s,
                    "timeout",
                    f"no first token within {timeouts.first_token_s:g} s",
                )
            )
        if self.leave_after_s is not None:
            ends.append((sent_at + self.leave_after_s, "cancelled", USER_LEFT))
        return min(ends)

    def pass_by(self) -> None:
        self.receipt.end(*self.next()[1:])


def _receive(connection: Connection, parser: _Parser, limits: _Limits) -> None:
    receipt = parser.receipt
    remaining = limits.next()[0] - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    connection.sock.settimeout(remaining)
    data = connection.sock.recv(RECEIVE_BYTES)
    receipt.now = time.monotonic()
    receipt.num_bytes += len(data)
    if not data:
        _closed(receipt)
    elif receipt.num_bytes > MAX_ANSWER_BYTES:
        receipt.end("cancelled", f"answer larger than {MAX_ANSWER_BYTES >> 20} MiB")
    else:
        parser.feed(data)


def _closed(receipt: Receipt) -> None:
    if receipt.status is None:
        receipt.end("cut", "connection closed before an answer")
    elif receipt.framed:
        receipt.end("cut", "connection closed in the middle of the answer")
    else:
        receipt.end("closed")
