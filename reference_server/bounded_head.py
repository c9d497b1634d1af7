"""uvicorn's fast HTTP protocol with a bound that it lacks: on what stands around a request's body."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 << 10


class BoundedHead(HttpToolsProtocol):
    """More than MAX_HEAD_BYTES without a request's headers being complete, or its body going on,
    end with a 400 and the connection: headers, trailers and chunk extensions would be kept in
    memory until their end, before anybody has asked for a key.

    What one read of the socket brings (at most 256 KiB) is parsed before it is counted.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._num_pending, self._goes_on = 0, False

    def data_received(self, data: bytes) -> None:
        self._goes_on = False
        super().data_received(data)
        self._num_pending = 0 if self._goes_on else self._num_pending + len(data)
        if self._num_pending > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("the request's headers are too large")

    def on_headers_complete(self) -> None:
        self._goes_on = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._goes_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._goes_on = True
        super().on_message_complete()
