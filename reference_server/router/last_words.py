"""How an answer that is cut off by the end of a drain says why."""

from __future__ import annotations

import orjson
from starlette.types import Message, Send

from reference_server.api_errors import ApiError


class LastWords:
    """`send` of one request, which remembers how far the answer has come."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._has_begun = self._has_ended = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._has_begun = True
        else:
            self._has_ended = not message.get("more_body", False)
        await self._send(message)

    async def end(self, error: ApiError) -> None:
        """An answer that has not begun is the error; a stream that has ends with it as an event."""
        if self._has_ended:
            return
        if not self._has_begun:
            raise error
        last = b"\n\ndata: " + orjson.dumps(error.body) + b"\n\n"
        await self._send({"type": "http.response.body", "body": last})
