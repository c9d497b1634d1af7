"""KV events as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import orjson
from starlette.types import Receive, Scope, Send

from reference_server.kv_events import KVEvent, KVEvents
from reference_server.responses import EVENT_STREAM_HEADERS, until_disconnect

POLL_S = 0.05  # polled, so that a block costs the engine's thread no call into the event loop


class Counted(Protocol):
    num_event_streams: int


class EventStream:
    """An ASGI app: every event after `since` until the client leaves or `goes_on` says no.

    A reader that is too slow gets `event: lost` with how many it missed, and what is left.
    """

    def __init__(self, events: KVEvents, since: int, counted: Counted, goes_on: Callable[[], bool]):
        self.events, self.since, self.counted, self.goes_on = events, since, counted, goes_on

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.counted.num_event_streams += 1
        try:
            await until_disconnect(receive, self._tell(send))
        finally:
            self.counted.num_event_streams -= 1

    async def _tell(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": EVENT_STREAM_HEADERS}
        await send(start)
        await send({"type": "http.response.body", "body": b": begins\n\n", "more_body": True})
        while self.goes_on():
            body = self._new()
            if body:
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await asyncio.sleep(POLL_S)
        await send({"type": "http.response.body", "body": self._new()})

    def _new(self) -> bytes:
        events, num_lost = self.events.since(self.since)
        lost = [b"event: lost\ndata: " + orjson.dumps({"num": num_lost}) + b"\n\n"]
        if events:
            self.since = events[-1].number
        return b"".join([*(lost if num_lost else []), *map(_event, events)])


def _event(event: KVEvent) -> bytes:
    data = {
        "block": event.block.hex() if event.block else None,
        "parent": event.parent.hex() if event.parent else None,
        "tier": event.tier,
    }
    head = f"id: {event.number}\nevent: {event.kind}\ndata: ".encode()
    return head + orjson.dumps(data) + b"\n\n"
