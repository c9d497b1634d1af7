"""The server's HTTP without a process: a service over the checking runner, and calls to it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from engine_builders import CheckingRunner
from tiny_model import make_tokenizer

from loadkit.core.tokenizer import Tokenizer
from reference_server.api import make_app
from reference_server.engine import Engine, EngineSettings
from reference_server.keys import Keys
from reference_server.service import Service

BODY = {"prompt": [5, 6, 7], "max_tokens": 4, "temperature": 0}


def make_service(keys: Keys | None = None, **settings: Any) -> Service:
    """A ready service with blocks of 4; whoever makes it stops its engine."""
    service = Service("tiny", keys or Keys())
    settings = {"block_size": 4, "num_blocks": 50, **settings}
    runner = CheckingRunner(4, vocabulary=340)
    engine = Engine(runner, EngineSettings(**settings), service.metrics)
    engine.start()
    service.install(engine, Tokenizer(make_tokenizer(), "tiny"), frozenset({1}))
    return service


def call(service: Service, method: str, path: str, **options: Any) -> httpx.Response:
    return asyncio.run(ask(service, method, path, **options))


async def ask(
    service: Service, method: str, path: str, append_only: str = "off", **options: Any
) -> httpx.Response:
    """append_only: mode of the guard; only one call of a service can have it on."""
    transport = httpx.ASGITransport(make_app(service, append_only=append_only))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.request(method, path, **options)


def as_key(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
