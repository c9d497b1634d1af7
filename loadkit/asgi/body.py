"""Reads a request's body with a cap and gives it to the application as if nobody had read it."""

from __future__ import annotations

import asyncio
from typing import Any

from loadkit.asgi.own_site import Receive


class Replayed:
    """`receive` for the application: what was read, then what still comes; it can be cut off, by
    `cut` or from outside by the event that it was given."""

    def __init__(self, receive: Receive, cut: asyncio.Event | None = None) -> None:
        self._receive = receive
        self._read: list[Any] = []
        self._cut = cut or asyncio.Event()

    async def body(self, max_bytes: int) -> bytes | None:
        """The whole body; None if it is larger, or the client left while sending."""
        parts, size, more = [], 0, True
        while more:
            message = await self._receive()
            self._read.append(message)
            part = message.get("body", b"")
            size += len(part)
            if message["type"] != "http.request" or size > max_bytes:
                return None
            parts.append(part)
            more = message.get("more_body", False)
        return b"".join(parts)

    @property
    def has_left(self) -> bool:
        return bool(self._read) and self._read[-1]["type"] == "http.disconnect"

    def cut(self) -> None:
        """From now on the application hears that its client has left, and can stop its work."""
        self._cut.set()

    async def __call__(self) -> Any:
        if self._read:
            return self._read.pop(0)
        coming = asyncio.ensure_future(self._receive())
        cutting = asyncio.ensure_future(self._cut.wait())
        try:
            await asyncio.wait({coming, cutting}, return_when=asyncio.FIRST_COMPLETED)
            return {"type": "http.disconnect"} if self._cut.is_set() else coming.result()
        finally:
            for task in (coming, cutting):
                task.cancel()
