"""A server in virtual time, and what one tenant can see while another one uses it.

No thread and no clock: the test drives the engine step by step, and time is the work done, 1 a step
and 1 a token computed. Everything that a caller sees, when it sees it included, is then a value that
two worlds can be compared in.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from engine_builders import make_engine, make_lower
from tiny_model import make_tokenizer

from loadkit.core.tokenizer import Tokenizer
from reference_server.api import make_app
from reference_server.keys import Keys
from reference_server.service import Service

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
VICTIM, ATTACKER, OTHER = "victims-key", "attackers-key", "others-key"
# Random or the time of day, and so nothing that depends on anybody's requests.
NEVER_EQUAL = re.compile(rb'"(id|created)":("[^"]*"|\d+)')
FLUSHES = 60  # turns of the event loop in which all that a step gave reaches its reader


@dataclass
class Seen:
    """Parts of one answer with the time since the request at which each came. parts[0] has status
    and headers."""

    parts: list[tuple[int, str]] = field(default_factory=list)

    @property
    def features(self) -> dict[str, float]:
        """What an attacker would look at: status, times, and every number of usage."""
        text = "".join(part for _, part in self.parts[1:])
        found = {"status": float(self.parts[0][1][:3]), "length": float(len(text))}
        times = [at for at, part in self.parts if "choices" in part]
        if times:
            found |= {"ttft": times[0], "decode": times[-1] - times[0]}
        usage = re.findall(r'"([a-z_]+)":(\d+)', text[text.rfind('"usage"') :])
        return found | {name: float(number) for name, number in usage}


class ProbeWorld:
    """lower: capacities of host and disk. settings: of the engine. Blocks of 4, replies of 6."""

    def __init__(self, lower: tuple[int, ...] = (), num_blocks: int = 60, **settings: Any) -> None:
        self.engine = make_engine(
            num_blocks, vocabulary=340, lower=make_lower(*lower) if lower else None, **settings
        )
        self.service = Service("tiny", Keys((VICTIM, ATTACKER, OTHER), "admin"))
        self.engine.listener = self.service.metrics
        self.service.install(self.engine, Tokenizer(make_tokenizer(), "tiny"), frozenset())
        self.app = make_app(self.service, append_only="enforce")
        self.work = 0
        self.engine.listener.step = self._note  # type: ignore[method-assign]

    def _note(self, num_tokens: int) -> None:
        self.work += 1 + num_tokens

    async def begin(self, key: str, body: dict[str, Any], **options: Any) -> asyncio.Task[Seen]:
        """The request is in the engine's queue, or answered already; nothing is computed meanwhile."""
        queued = self.engine.num_waiting
        asking = asyncio.create_task(self._ask(key, body, **options))
        while self.engine.num_waiting == queued and not asking.done():
            await asyncio.sleep(0)
        return asking

    async def step(self) -> None:
        self.engine.step()
        for _ in range(FLUSHES):
            await asyncio.sleep(0)

    async def end(self, asking: asyncio.Task[Seen]) -> Seen:
        while not asking.done():
            await self.step()
        return asking.result()

    async def ask(self, key: str, body: dict[str, Any], **options: Any) -> Seen:
        return await self.end(await self.begin(key, body, **options))

    async def complete(self, key: str, prompt: list[int], **fields: Any) -> Seen:
        return await self.ask(key, completion(prompt, **fields))

    async def _ask(
        self, key: str, body: dict[str, Any], path: str = COMPLETIONS, **headers: str
    ) -> Seen:
        seen, began = Seen(), self.work
        parts = [{"type": "http.request", "body": json.dumps(body).encode()}]

        async def receive() -> Any:
            return parts.pop() if parts else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            said = message.get("body", b"")
            if message["type"] == "http.response.start":
                said = b"%d %r" % (message["status"], sorted(message["headers"]))
            seen.parts.append((self.work - began, NEVER_EQUAL.sub(b"", said).decode()))

        given = {"host": "localhost", "authorization": f"Bearer {key}", **headers}
        named = [(k.replace("_", "-").encode(), v.encode()) for k, v in given.items()]
        scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": path}
        await self.app(scope | {"query_string": b"", "headers": named}, receive, send)
        return seen


def completion(prompt: list[int], **fields: Any) -> dict[str, Any]:
    body = {"prompt": prompt, "max_tokens": 6, "temperature": 0, "stream": True}
    return body | {"stream_options": {"include_usage": True}, "ignore_eos": True} | fields


def run(scenario: Callable[[], Awaitable[Any]]) -> Any:
    async def started() -> Any:
        return await scenario()

    return asyncio.run(started())
