"""The raw bytes of one answer, each piece with the time at which it arrived: stamp now, parse later."""

from __future__ import annotations

import re
from typing import Literal

import httptools

# A JSON string cannot hold a raw line break, so this is never text of the model.
_DONE_AT_END = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]\s*$")
_DONE_WINDOW = 64
_KEPT_HEADERS = (b"content-type", b"content-encoding", b"retry-after", b"date", b"location")

End = Literal["complete", "closed", "cut", "timeout", "malformed", "cancelled", "not_sent"]


class Receipt:
    """Raw bytes of one answer and the monotonic time at which each piece arrived.

    `ended` is None while receiving, then: complete (HTTP framing says so, or a `[DONE]` ended a
    close-delimited stream), closed (end of a close-delimited body), or what went wrong. now: when
    the latest bytes arrived. lag_s: the longest that bytes had lain in the kernel before they were
    read; None without kernel stamps. connect_s: what opening the connection took, None for a kept
    one. resent: the request went out twice. has_surplus: more came than one answer. The `on_`
    methods are httptools' callbacks.
    """

    def __init__(self) -> None:
        self.sent_at: float | None = None
        self.connect_s: float | None = None
        self.resent = self.has_surplus = False
        self.now = 0.0
        self.lag_s: float | None = None
        self.stamps: list[float] = []
        self.pieces: list[bytes] = []
        self.on_body = self.pieces.append  # no call of ours for each of a thousand chunks
        self.num_bytes = 0
        self.status: int | None = None
        self.headers: dict[bytes, bytes] = {}
        self.framed = False
        self.keep_alive = False
        self.ended: End | None = None
        self.error: str | None = None
        self._tail = b""
        self._num_pieces: int | None = None  # at the end of the answer
        self._parser: httptools.HttpResponseParser | None = None

    @property
    def content_type(self) -> bytes:
        return self.headers.get(b"content-type", b"").lower()

    def begin(self, at: float) -> None:
        """The request is sent now."""
        self.sent_at = self.now = at
        self._parser = httptools.HttpResponseParser(self)  # looks the callbacks up at once

    def end(self, how: End, error: str | None = None) -> None:
        """Set how the answer ended; the first cause wins."""
        if self.ended is None:
            self.ended, self.error = how, error
            self._tail = b""

    def refuse(self, error: str) -> None:
        """A complete answer is not believed to be this request's: nothing of it counts."""
        self.ended, self.error = "malformed", error
        self.pieces.clear()
        self.stamps.clear()

    @property
    def is_unread(self) -> bool:
        """Whether the connection was lost before a byte of an answer came."""
        return self.ended == "cut" and self.num_bytes == 0

    def start_over(self) -> None:
        """The same request goes out again; only for one that `is_unread`."""
        self.ended = self.error = None
        self.resent = True

    def forget_parser(self) -> None:
        """The two hold each other; parted they go without the garbage collector."""
        self._parser = None

    def feed(self, data: bytes) -> None:
        """Bytes that arrived at `now`."""
        try:
            self._parser.feed_data(data)  # type: ignore[union-attr]  # begin() made it
        except httptools.HttpParserUpgrade:
            self.end("malformed", "the server wants to switch to another protocol")
        except httptools.HttpParserError as error:
            self.keep_alive = False
            self.has_surplus = self.ended == "complete"
            self.end("malformed", f"not HTTP: {error}")
        self._stamp_pieces()

    def _stamp_pieces(self) -> None:
        """The pieces that the parser has just found all arrived now."""
        pieces, stamps = self.pieces, self.stamps
        if self._num_pieces is not None:
            del pieces[self._num_pieces :]  # of a second answer that nobody asked for
        num_old = len(stamps)
        stamps += [self.now] * (len(pieces) - num_old)
        if not self.framed and self.ended is None:
            self._look_for_done(pieces[num_old:])

    def _look_for_done(self, pieces: list[bytes]) -> None:
        """A close-delimited stream says itself when it is complete."""
        last = b"".join(piece[-_DONE_WINDOW:] for piece in pieces[-_DONE_WINDOW:])
        self._tail = (self._tail + last)[-_DONE_WINDOW:]
        if _DONE_AT_END.search(self._tail):
            self.end("complete")

    def feed_end(self) -> None:
        """The server has closed the connection."""
        if self.status is None:
            self.end("cut", "connection closed before an answer")
        elif self.framed:
            self.end("cut", "connection closed in the middle of the answer")
        else:
            self.end("closed")

    def on_message_begin(self) -> None:
        if self.ended is not None:  # more than one answer: what comes next is nobody's
            self.keep_alive, self.has_surplus = False, True

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        if self.ended is not None:
            return
        if key in _KEPT_HEADERS:
            self.headers[key] = value
        elif key in (b"content-length", b"transfer-encoding"):
            self.framed = True

    def on_headers_complete(self) -> None:
        status: int = self._parser.get_status_code()  # type: ignore[union-attr]
        if self.ended is not None:
            return
        if status >= 200:  # interim answers are passed over
            self.status = status
        else:
            self.framed = False

    def on_message_complete(self) -> None:
        if self.status is not None and self.ended is None:
            # Only known right now.
            self.keep_alive = bool(self._parser.should_keep_alive())  # type: ignore[union-attr]
            self._num_pieces = len(self.pieces)
            self.end("complete")
