"""The append-only guard in front of the reference server's own routes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from engine_builders import CheckingRunner
from tiny_model import make_tokenizer

from loadkit.core.tokenizer import Tokenizer
from reference_server.api import make_app
from reference_server.engine import Engine, EngineSettings
from reference_server.service import Service

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "hello world"}


@pytest.fixture
def service() -> Iterator[Service]:
    engine = Engine(CheckingRunner(4, vocabulary=340), EngineSettings(block_size=4, num_blocks=200))
    engine.start()
    service = Service("tiny")
    service.install(engine, Tokenizer(make_tokenizer(), "tiny"), frozenset({1}))
    yield service
    engine.stop()


def talk(service: Service, mode: str, stream: bool) -> tuple[list[int], str]:
    """A first turn, a changed reply, the reply as it was: their status codes, and /metrics."""

    async def scenario() -> tuple[list[int], str]:
        transport = httpx.ASGITransport(make_app(service, append_only=mode))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:

            async def send(*messages: Any, stream: bool = False) -> httpx.Response:
                body = {"messages": messages, "max_tokens": 8, "temperature": 0, "stream": stream}
                return await client.post(CHAT, json=body, headers={"x-session-id": "s"})

            whole = (await send(USER)).json()["choices"][0]["message"]
            answers = [
                await send(USER, stream=stream),
                await send(USER, whole | {"content": whole["content"] + " "}, USER),
                await send(USER, whole, USER),
            ]
            metrics = (await client.get("/metrics")).text
        return [answer.status_code for answer in answers], metrics

    return asyncio.run(scenario())


@pytest.mark.parametrize("stream", [False, True])
def test_enforced_a_changed_reply_is_refused_and_the_metric_says_so(
    service: Service, stream: bool
) -> None:
    """Streamed greedily, the reply is the same: both belong to the request that was resent."""
    codes, metrics = talk(service, "enforce", stream)
    assert codes == [200, 409, 200]
    assert 'loadkit:append_only_rejections_total{reason="reply"} 1.0' in metrics
    assert 'loadkit:append_only_requests_total{outcome="resent"} 1.0' in metrics


def test_observed_it_passes_and_nothing_is_called_a_rejection(service: Service) -> None:
    codes, metrics = talk(service, "observe", stream=False)
    assert codes == [200, 200, 200]
    assert 'loadkit:append_only_violations_total{reason="reply"} 1.0' in metrics
    assert 'loadkit:append_only_rejections_total{reason="reply"} 0.0' in metrics


def test_off_there_is_no_such_metric(service: Service) -> None:
    codes, metrics = talk(service, "off", stream=False)
    assert codes == [200, 200, 200]
    assert "append_only" not in metrics
