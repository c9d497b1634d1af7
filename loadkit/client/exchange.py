"""One request and its answer on the wire."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from loadkit.client.connection import Connection
from loadkit.client.kernel_time import ANCILLARY_BYTES, arrived_at
from loadkit.client.receipt import End, Receipt
from loadkit.client.timeouts import Timeouts

RECEIVE_BYTES = 1 << 16
MAX_ANSWER_BYTES = 64 << 20
MAX_HEAD_BYTES = 1 << 20
USER_LEFT = "the user left"
TOO_EARLY = "an answer came before its request was sent: it belongs to another one"
TOO_MANY = "two answers came on a kept connection: which belongs to this request cannot be told"
Limit = tuple[float, End, str]


class Exchange:
    """The state of one exchange. Whoever waits for the socket (see `pump`) calls its methods, which
    never block and never raise for what a server or network does.

    has_token(receipt): whether a first token is among what was received; asked only when the time
    for it is up. leave_after_s: the user hangs up so long after sending. max_bytes: of an answer,
    None: MAX_ANSWER_BYTES.
    """

    def __init__(
        self,
        connection: Connection,
        receipt: Receipt,
        timeouts: Timeouts,
        *,
        leave_after_s: float | None = None,
        has_token: Callable[[Receipt], bool],
        max_bytes: int | None = None,
    ):
        self.connection, self.receipt, self.timeouts = connection, receipt, timeouts
        self.fd = connection.sock.fileno()
        self._leave_after_s, self._has_token = leave_after_s, has_token
        self._max_bytes = max_bytes or MAX_ANSWER_BYTES
        self._awaits_token = timeouts.first_token_s is not None
        self._unsent = memoryview(b"")
        self._is_kept, self._is_early = connection.connect_s is None, False

    def begin(self, request: bytes) -> None:
        """Start to send; `is_sending` tells whether some of it is left."""
        self.receipt.connect_s = self.connection.connect_s
        self.receipt.begin(time.monotonic())
        tls = self.connection.tls
        try:
            self._unsent = memoryview(request if tls is None else tls.encrypt(request))
        except OSError as error:
            self.receipt.end("cut", f"connection lost before sending: {error}")
        else:
            self.on_writable()

    @property
    def is_sending(self) -> bool:
        return len(self._unsent) > 0 and self.receipt.ended is None

    def on_writable(self) -> None:
        try:
            sent = self.connection.sock.send(self._unsent)
            self._unsent = self._unsent[sent:]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._read_last_words()
            self.receipt.end("cut", f"connection lost while sending: {error}")

    def on_readable(self) -> bool:
        """Take what has arrived. True when the answer has ended."""
        try:
            data = self._receive()
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self.receipt.end("cut", f"connection lost: {error}")
            return True
        receipt = self.receipt
        if data is None:
            receipt.feed_end()
        elif self._is_early:
            receipt.end("malformed", TOO_EARLY)
            self.connection.unasked = True
        elif data:
            receipt.num_bytes += len(data)
            receipt.feed(data)
            if receipt.has_surplus and self._is_kept:
                receipt.refuse(TOO_MANY)
            if receipt.status is None or receipt.num_bytes > self._max_bytes:
                self._check_size()
        return receipt.ended is not None

    def on_due(self) -> bool:
        """A limit may have passed. True when the answer has ended."""
        at, how, error = self._next_limit()
        if at <= time.monotonic():
            if how == "timeout" and self._awaits_token and self._has_token(self.receipt):
                self._awaits_token = False
                return self.on_due()
            self.receipt.end(how, error)
        return self.receipt.ended is not None

    @property
    def due(self) -> float:
        """Monotonic time at which the next limit passes, should nothing arrive before."""
        return self._next_limit()[0]

    def finish(self) -> None:
        receipt = self.receipt
        receipt.forget_parser()
        self.connection.unasked = self.connection.unasked or receipt.has_surplus
        self.connection.reusable = (
            receipt.ended == "complete" and receipt.keep_alive and not self._unsent
        )

    def _receive(self) -> bytes | None:
        """Bytes of the answer, b"" when there are none yet, None at the end. Stamps first."""
        connection, receipt = self.connection, self.receipt
        if connection.stamped:
            data, extras, _, _ = connection.sock.recvmsg(RECEIVE_BYTES, ANCILLARY_BYTES)
            receipt.now = self._stamp(extras, time.monotonic())
        else:
            data = connection.sock.recv(RECEIVE_BYTES)
            receipt.now = time.monotonic()
        if connection.tls is None:
            return data or None
        plain = self._plain(data)
        self._is_early = self._is_early and bool(plain)  # a session ticket may come early
        return plain

    def _stamp(self, extras: list[tuple[int, int, bytes]], now: float) -> float:
        """Arrival of what was read just now; the kernel leaves a stamp out now and then."""
        if not extras:
            return now
        receipt = self.receipt
        if receipt.num_bytes:
            at = arrived_at(extras[0][2], receipt.now, now)
        else:  # it may be older than the request, but not than our last look
            sent_at = receipt.sent_at or 0.0
            at = arrived_at(extras[0][2], self.connection.looked_at, now)
            self._is_early, at = self._is_kept and at < sent_at, max(at, sent_at)
        if receipt.lag_s is None or now - at > receipt.lag_s:
            receipt.lag_s = now - at
        return at

    def _plain(self, data: bytes) -> bytes | None:
        tls = self.connection.tls
        assert tls is not None
        plain = tls.decrypt(data)
        if answer := tls.take_outgoing():
            with suppress(OSError):  # what was received counts all the same
                self.connection.sock.send(answer)
        return None if tls.closed and not plain else plain

    def _read_last_words(self) -> None:
        """A server may answer (413) and hang up while we still send."""
        while self.receipt.ended is None and self.on_readable() is False:
            if self.receipt.status is None:
                return

    def _check_size(self) -> None:
        receipt = self.receipt
        if receipt.num_bytes > self._max_bytes:
            receipt.end("cancelled", f"answer larger than {self._max_bytes >> 20} MiB")
        elif receipt.num_bytes > MAX_HEAD_BYTES:
            receipt.end("malformed", f"headers larger than {MAX_HEAD_BYTES >> 20} MiB")

    def _next_limit(self) -> Limit:
        sent_at, limits = self.receipt.sent_at or 0.0, self.timeouts
        total_s, token_s, idle_s = limits.total_s, limits.first_token_s, limits.idle_s
        ends: Limit = (sent_at + total_s, "timeout", f"no complete answer within {total_s:g} s")
        if idle_s is not None:
            ends = min(ends, (self.receipt.now + idle_s, "timeout", f"silent for {idle_s:g} s"))
        if token_s is not None and self._awaits_token:
            ends = min(ends, (sent_at + token_s, "timeout", f"no first token within {token_s:g} s"))
        if self._leave_after_s is not None:
            ends = min(ends, (sent_at + self._leave_after_s, "cancelled", USER_LEFT))
        return ends
