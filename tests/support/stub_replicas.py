"""Replicas for the router's tests: a cache of blocks, a scripted fault, no socket and no model."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx

from reference_server.key_check import KeyCheck
from reference_server.keys import Keys
from reference_server.router.fleet import Fleet, Replica
from reference_server.router.prompt import read_prompt
from reference_server.router.proxy import Router
from reference_server.router.routing import Routing, make_routing

TOKENS_PER_BLOCK = 16


class BlockCache:
    """LRU of chained block hashes, tail first; `room` None: unbounded."""

    def __init__(self, room: int | None = None) -> None:
        self._room = room
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def hit(self, blocks: Sequence[int]) -> int:
        """Leading blocks that were there; all of them are now."""
        found = next((n for n, b in enumerate(blocks) if b not in self._blocks), len(blocks))
        for block in reversed(blocks):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while self._room is not None and len(self._blocks) > self._room:
            self._blocks.popitem(last=False)
        return found


class Stub:
    """One replica. fault: None, "refuse" (nobody listens), "lose" (no answer), "hang" (no
    answer, ever), "cut" (after the first
    chunk), or a status to answer with. gate: a stream waits for it after its first chunk."""

    def __init__(self, room: int | None = None) -> None:
        self.cache = BlockCache(room)
        self.fault: str | int | None = None
        self.gate: asyncio.Event | None = None
        self.is_asked = asyncio.Event()
        self.is_closed_by_client = False
        self.requests: list[httpx.Request] = []
        self.bodies: list[bytes] = []
        self.metrics = ""
        self.resets = True

    def answer(self, request: httpx.Request, body: bytes) -> httpx.Response:
        self.requests.append(request)
        self.bodies.append(body)
        if self.fault == "refuse":
            raise httpx.ConnectError("refused")
        if request.url.path == "/health":
            return httpx.Response(200)
        if request.url.path == "/metrics":
            return httpx.Response(200, text=self.metrics)
        if request.url.path == "/reset_prefix_cache":
            return httpx.Response(200, json={"success": self.resets})
        if self.fault == "lose":
            raise httpx.RemoteProtocolError("closed")
        if isinstance(self.fault, int):
            return httpx.Response(self.fault, json={"error": {"code": f"stub_{self.fault}"}})
        return self._complete(request, body)

    def _complete(self, request: httpx.Request, body: bytes) -> httpx.Response:
        prompt = read_prompt(dict(request.headers.raw), body)
        assert prompt is not None
        usage = {
            "prompt_tokens": prompt.length * TOKENS_PER_BLOCK,
            "prompt_tokens_details": {
                "cached_tokens": self.cache.hit(prompt.blocks) * TOKENS_PER_BLOCK
            },
        }
        if not json.loads(body).get("stream"):
            return httpx.Response(200, json={"choices": [], "usage": usage})
        events = [{"choices": [{"delta": {"content": "a"}}]}, {"choices": [], "usage": usage}]
        chunks = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
        chunks.append(b"data: [DONE]\n\n")
        headers = {"content-type": "text/event-stream; charset=utf-8"}
        return httpx.Response(200, headers=headers, stream=_Stream(self, chunks))


class _Stream(httpx.AsyncByteStream):
    def __init__(self, stub: Stub, chunks: list[bytes]) -> None:
        self._stub, self._chunks = stub, chunks
        self._is_done = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number, chunk in enumerate(self._chunks):
            if number and self._stub.gate is not None:
                await self._stub.gate.wait()
            if number and self._stub.fault == "cut":
                raise httpx.ReadError("cut")
            yield chunk
        self._is_done = True

    async def aclose(self) -> None:
        self._stub.is_closed_by_client = not self._is_done


class _Once(httpx.AsyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content


class Stubs(httpx.AsyncBaseTransport):
    """`count` replicas at http://0, http://1, ..., and a router in front of them."""

    def __init__(
        self, count: int, routing: str | Routing = "prefix-aware", room: int | None = None
    ) -> None:
        self.stubs = [Stub(room) for _ in range(count)]
        self.fleet = Fleet([Replica(n, f"http://{n}") for n in range(count)])
        chosen = make_routing(routing, count) if isinstance(routing, str) else routing
        self.router = Router(self.fleet, chosen, httpx.AsyncClient(transport=self))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        stub = self.stubs[int(request.url.host)]
        if stub.fault == "hang":
            stub.requests.append(request)
            if request.url.path == "/health":
                raise httpx.ReadTimeout("late")
            stub.is_asked.set()
            await asyncio.Event().wait()
        made = stub.answer(request, body)
        if made.is_stream_consumed:  # as from a socket: nothing of it has been read yet
            return httpx.Response(
                made.status_code, headers=made.headers, stream=_Once(made.content)
            )
        return made

    def client(self) -> httpx.AsyncClient:
        app = KeyCheck(self.router, Keys)  # without keys everybody is the operator
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        return httpx.AsyncClient(transport=transport, base_url="http://router")

    def post(self, body: Any, **headers: str) -> httpx.Response:
        return asyncio.run(self.apost(body, **headers))

    async def apost(self, body: Any, **headers: str) -> httpx.Response:
        async with self.client() as client:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.post("/v1/chat/completions", json=body, headers=named)

    def get(self, path: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with self.client() as client:
                return await client.get(path)

        return asyncio.run(ask())

    def count(self, name: str, **labels: str) -> float | None:
        return self.router.metrics.registry.get_sample_value(f"loadkit:router_{name}", labels)
