"""The router's HTTP side, pure ASGI: choose a replica, pass its answer on, try again before it began."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
from starlette.types import Receive, Scope, Send

from loadkit import __version__
from loadkit.asgi.body import Replayed
from reference_server.api_errors import ApiError
from reference_server.metrics import CONTENT_TYPE
from reference_server.responses import until_disconnect
from reference_server.router.fleet import Fleet, Replica
from reference_server.router.health import HealthChecks
from reference_server.router.keeper import Keeper
from reference_server.router.last_words import LastWords
from reference_server.router.metrics import RouterMetrics, Summed
from reference_server.router.prompt import RoutedPrompt, read_prompt
from reference_server.router.routing import Choice, Routing
from reference_server.router.upstream import Answer, Asked, Lost, ask, make_client
from reference_server.router.usage import UsageTail

MAX_BODY_BYTES = 16 << 20
# A request whose replica was lost is tried on one other: one that brings engines down must not see all.
MAX_LOST = 2
# The replica says that it did not begin: another may have room, or be past loading.
TRY_ELSEWHERE = {429: "full", 503: "not_ready"}
REPLICA_HEADER = b"x-loadkit-replica"
JSON_HEADERS = [(b"content-type", b"application/json")]


class Router:
    """ASGI application in front of `fleet`. Its lifespan runs the health checks and the keeper."""

    def __init__(self, fleet: Fleet, routing: Routing, client: httpx.AsyncClient | None = None):
        self.fleet, self.routing = fleet, routing
        self.client = client or make_client()
        self.metrics = RouterMetrics(fleet, routing)
        self.health = HealthChecks(fleet, self.client)
        self.keeper: Keeper | None = None  # None: nobody starts a replica again
        self.is_draining = False
        self._over = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._summed = Summed()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            try:
                await self._http(scope, receive, send)
            except ApiError as error:
                await error.response()(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/health":
            await self._tell_health(send)
            return
        if scope["path"] == "/version":
            await _tell(send, 200, orjson.dumps({"version": __version__}))
            return
        if self.is_draining:
            raise ApiError(503, "not serving: draining", code="draining")
        asked = await _read(scope, receive)
        what = (scope["method"], scope["path"])
        if what == ("GET", "/metrics"):
            await self._tell_metrics(asked, send)
        elif what == ("POST", "/reset_prefix_cache"):
            await self._reset(asked, send)
        else:
            caller = scope.get("state", {}).get("caller")
            telling = LastWords(send)
            # Which replica it was says how busy the others are: to the operator alone.
            passing = self._pass(asked, telling, tells=caller is not None and caller.is_operator)
            await until_disconnect(Replayed(receive, self._over), passing)
            if self._over.is_set():
                await telling.end(ApiError(503, "the server is stopping", code="aborted"))

    def end_requests(self) -> None:
        """From any thread: the drain is over, what is still in flight ends as 503."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._over.set)

    def started_again(self, replica: int) -> None:
        """A process ended, and a new one takes its place."""
        self.metrics.started_again(replica)
        self._summed.ended(replica)

    # -- passing requests on

    async def _pass(self, asked: Asked, send: Send, *, tells: bool) -> None:
        prompt = None
        if asked.path.partition("?")[0].endswith("/completions"):
            prompt = read_prompt(dict(asked.headers), asked.body)
        async with self._answered(asked, prompt) as (answer, choice):
            name = (REPLICA_HEADER, str(choice.replica.index).encode())
            headers = [*answer.headers, name] if tells else answer.headers
            start = {"type": "http.response.start", "status": answer.status, "headers": headers}
            await send(start)
            usage = UsageTail()
            usage.feed(answer.first)
            if answer.is_stream:
                await self._stream(answer, choice.replica, usage, send)
            else:
                await send({"type": "http.response.body", "body": answer.first})
            told = usage.read()
            if told is not None:
                self.routing.learn(choice, *told)

    async def _stream(self, answer: Answer, replica: Replica, usage: UsageTail, send: Send) -> None:
        """Chunk by chunk. A replica lost on the way ends the stream with an error event."""
        await send({"type": "http.response.body", "body": answer.first, "more_body": True})
        last = b""
        try:
            async for chunk in answer.rest:
                usage.feed(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except httpx.TransportError:
            self.metrics.lost(replica.index)
            self.health.suspect(replica)
            last = b"\n\ndata: " + orjson.dumps(_lost_error(replica).body) + b"\n\n"
        await send({"type": "http.response.body", "body": last})

    @contextlib.asynccontextmanager
    async def _answered(
        self, asked: Asked, prompt: RoutedPrompt | None
    ) -> AsyncIterator[tuple[Answer, Choice]]:
        """The first answer that begins and that no other replica could give better. ApiError 502, 503."""
        tried: frozenset[int] = frozenset()
        num_lost = 0
        while True:
            choice = self._choose(prompt, tried)
            tried |= {choice.replica.index}
            choice.replica.num_in_flight += 1
            try:
                answer = await self._first_byte(asked, choice)
            except Lost as error:
                choice.replica.num_in_flight -= 1
                num_lost += 1
                self.health.suspect(choice.replica, is_gone=error.is_gone)
                if num_lost == MAX_LOST or not self.fleet.up(tried):
                    self.metrics.lost(choice.replica.index)
                    raise _lost_error(choice.replica) from error
                self.metrics.retried("lost")
                continue
            except BaseException:
                choice.replica.num_in_flight -= 1
                raise
            try:
                if answer.status not in TRY_ELSEWHERE or not self.fleet.up(tried):
                    yield answer, choice
                    return
                self.metrics.retried(TRY_ELSEWHERE[answer.status])
            finally:
                choice.replica.num_in_flight -= 1
                await answer.close()

    def _choose(self, prompt: RoutedPrompt | None, tried: frozenset[int]) -> Choice:
        up = self.fleet.up(tried)
        if not up:
            raise ApiError(
                503, "no replica is ready", code="no_replica", headers={"Retry-After": "1"}
            )
        choice = self.routing.pick(prompt, up)
        self.metrics.routed(choice)
        return choice

    async def _first_byte(self, asked: Asked, choice: Choice) -> Answer:
        """Until then the prompt's new blocks count as queued. Lost too when the replica is taken out."""
        replica, new = choice.replica, choice.new
        asking = asyncio.create_task(ask(self.client, replica, asked))
        replica.queued += new
        replica.waiting.add(asking)
        try:
            return await asking
        except asyncio.CancelledError:
            if _is_cancelled_itself() or replica.is_up:
                raise
            raise Lost(replica) from None
        finally:
            replica.queued -= new
            replica.waiting.discard(asking)

    # -- the router's own answers

    async def _tell_health(self, send: Send) -> None:
        up = [replica.index for replica in self.fleet.up()]
        status = "draining" if self.is_draining else "ready" if up else "no_replica"
        body = {"status": status, "replicas": len(self.fleet.replicas), "up": up}
        await _tell(send, 200 if status == "ready" else 503, orjson.dumps(body))

    async def _tell_metrics(self, asked: Asked, send: Send) -> None:
        """A replica's refusal, such as of a wrong key, is the router's."""
        for replica, answer in await self._ask_all(asked):
            if answer.status != 200:
                await _tell(send, answer.status, answer.first)
                return
            self._summed.update(replica.index, answer.first.decode())
        page = self._summed.render([r.index for r in self.fleet.up()], self.metrics.registry)
        await _tell(send, 200, page, [(b"content-type", CONTENT_TYPE.encode())])

    async def _reset(self, asked: Asked, send: Send) -> None:
        """All replicas; success only if every one of them dropped its cache."""
        answers = await self._ask_all(asked)
        for replica, answer in answers:
            if answer.status != 200:
                await _tell(send, answer.status, answer.first)
                return
            replica.forget()
        done = [orjson.loads(answer.first).get("success") is True for _, answer in answers]
        await _tell(send, 200, orjson.dumps({"success": all(done)}))

    async def _ask_all(self, asked: Asked) -> list[tuple[Replica, Answer]]:
        up = self.fleet.up()
        if not up:
            raise ApiError(503, "no replica is ready", code="no_replica")
        tries = (ask(self.client, replica, asked) for replica in up)
        found = await asyncio.gather(*tries, return_exceptions=True)
        answers = []
        for replica, answer in zip(up, found, strict=True):
            if isinstance(answer, Lost):
                self.health.suspect(replica, is_gone=answer.is_gone)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                await answer.close()
                answers.append((replica, answer))
        return answers

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._loop = asyncio.get_running_loop()
        running = [asyncio.create_task(self.health.run())]
        if self.keeper is not None:
            running.append(asyncio.create_task(self.keeper.run()))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self.client.aclose()
        await send({"type": "lifespan.shutdown.complete"})


async def _read(scope: Scope, receive: Receive) -> Asked:
    body, more = bytearray(), True
    while more:
        message: Any = await receive()
        if message["type"] != "http.request":
            raise ApiError(400, "the client left", code="client_left")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY_BYTES:
            raise ApiError(413, f"the body is over {MAX_BODY_BYTES} bytes", code="too_large")
    query = scope.get("query_string", b"").decode("latin-1")
    raw = scope.get("raw_path") or scope["path"].encode()
    path = raw.decode("latin-1").partition("?")[0]
    return Asked(
        scope["method"], f"{path}?{query}" if query else path, list(scope["headers"]), bytes(body)
    )


async def _tell(
    send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] = JSON_HEADERS
) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _is_cancelled_itself() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _lost_error(replica: Replica) -> ApiError:
    message = f"replica {replica.index} was lost while it computed the answer"
    return ApiError(502, message, code="replica_lost")
