"""Answers: one JSON object, or server-sent events; both end when the client goes away."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from reference_server.api_errors import ApiError
from reference_server.engine import Engine
from reference_server.generation import Delta, Generation, usage
from reference_server.logprobs import chat_logprobs, completion_logprobs
from reference_server.token_texts import TokenTexts

EVENT_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]
JSON_HEADERS = [(b"content-type", b"application/json")]


@dataclass(frozen=True, slots=True)
class Shape:
    """What chat and text completions put around the same tokens. `texts` None: no logprobs."""

    chat: bool
    model: str
    include_usage: bool
    token_ids: bool
    texts: TokenTexts | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def envelope(self, choices: list[dict[str, Any]], *, chunk: bool) -> dict[str, Any]:
        kind = "text_completion"
        if self.chat:
            kind = "chat.completion.chunk" if chunk else "chat.completion"
        prefix = "chatcmpl" if self.chat else "cmpl"
        return {
            "id": f"{prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def whole(self, generation: Generation, deltas: Sequence[Delta]) -> dict[str, Any]:
        """The answer to a request that does not stream."""
        by_choice = [[d for d in deltas if d.index == c.index] for c in generation.choices]
        answer = self.envelope([self._choice(own) for own in by_choice], chunk=False)
        answer |= {"usage": usage(generation.requests)}
        return answer | self._prompt_ids(generation)

    def _choice(self, deltas: Sequence[Delta]) -> dict[str, Any]:
        text = "".join(delta.text for delta in deltas)
        body: dict[str, Any] = {"text": text}
        if self.chat:
            body = {"message": {"role": "assistant", "content": text}}
        return self._around(deltas, body)

    def openings(self, generation: Generation) -> Iterator[dict[str, Any]]:
        """First chunks of a chat stream: each choice's role, and the prompt's ids if wanted."""
        for choice in generation.choices:
            delta = {"role": "assistant", "content": ""}
            made = {"index": choice.index, "delta": delta, "finish_reason": None}
            yield self.envelope([made], chunk=True) | self._prompt_ids(generation)

    def chunk(self, generation: Generation, delta: Delta, *, first: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"delta": {"content": delta.text}}
        if not self.chat:
            body = {"text": delta.text}
        made = self.envelope([self._around([delta], body)], chunk=True)
        return made | self._prompt_ids(generation) if first and not self.chat else made

    def closing(self, generation: Generation) -> dict[str, Any]:
        """The usage chunk: no choices, as OpenAI's include_usage says."""
        return self.envelope([], chunk=True) | {"usage": usage(generation.requests)}

    def _around(self, deltas: Sequence[Delta], body: dict[str, Any]) -> dict[str, Any]:
        """What a choice, or a piece of one, says beside its text."""
        last = deltas[-1]
        choice = {"index": last.index, **body, "logprobs": self._logprobs(deltas)}
        choice["finish_reason"] = last.finish_reason
        if self.token_ids:
            choice["token_ids"] = [delta.token_id for delta in deltas]
        return choice

    def _logprobs(self, deltas: Sequence[Delta]) -> dict[str, Any] | None:
        if self.texts is None:
            return None
        samples = [delta.sample for delta in deltas if delta.sample is not None]
        if self.chat:
            return chat_logprobs(samples, self.texts)
        return completion_logprobs(samples, [delta.offset for delta in deltas], self.texts)

    def _prompt_ids(self, generation: Generation) -> dict[str, Any]:
        leader = generation.requests[0]
        return {"prompt_token_ids": leader.tokens[: leader.num_prompt]} if self.token_ids else {}


class GenerationResponse:
    """An ASGI app that answers with the request's tokens and aborts it if the client leaves."""

    def __init__(self, engine: Engine, generation: Generation, shape: Shape):
        self.engine, self.generation, self.shape = engine, generation, shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await until_disconnect(receive, self._answer(send))
        finally:
            for request in self.generation.requests:
                if request.finish_reason is None:
                    self.engine.abort(request)

    async def _answer(self, send: Send) -> None:
        deltas = [delta async for delta in self.generation.deltas()]
        body = orjson.dumps(self.shape.whole(self.generation, deltas))
        await send({"type": "http.response.start", "status": 200, "headers": JSON_HEADERS})
        await send({"type": "http.response.body", "body": body})


class StreamedGeneration(GenerationResponse):
    """The same as server-sent events: one chunk a token, usage if asked, then [DONE]."""

    async def _answer(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": EVENT_STREAM_HEADERS}
        await send(start)
        async for event in self._events():
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def _events(self) -> AsyncIterator[bytes]:
        first = True
        try:
            async for delta in self.generation.deltas():
                if first and self.shape.chat:
                    for opening in self.shape.openings(self.generation):
                        yield _event(opening)
                yield _event(self.shape.chunk(self.generation, delta, first=first))
                first = False
            if self.shape.include_usage:
                yield _event(self.shape.closing(self.generation))
        except ApiError as error:  # the status line is out: the error becomes an event
            yield _event(error.body)


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work unless the client goes away first; then it is cancelled."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
