"""`loadkit serve --replicas`: real engine processes, one of which is killed, and then the router."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import LOADKIT, serving
from tiny_model import write_tiny_model

from loadkit.profiles import load
from loadkit.traffic.build import build_plan
from reference_server.router.fleet import Fleet, Replica
from reference_server.router.processes import replicas
from reference_server.router.proxy import Router
from reference_server.router.routing import make_routing

pytestmark = pytest.mark.e2e
CHAT = "/v1/chat/completions"
NUM_REPLICAS = 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


def test_a_killed_replica_loses_only_its_requests_and_all_end_with_the_router(model: Path) -> None:
    """One test for one start: two streams on each replica, one replica killed, which is started
    again, then the router."""
    options = ("--model", str(model), "--replicas", str(NUM_REPLICAS))
    with serving(*options) as served:
        children = children_of(served.process.pid)
        assert len(children) == NUM_REPLICAS
        ended = asyncio.run(streams_with_a_kill(served.url, children[0]))
        assert sorted(ended) == [("lost", "0"), ("lost", "0"), ("whole", "1"), ("whole", "1")]
        assert [status for status, _ in asyncio.run(whole_answers(served.url, 4))] == [200] * 4
        assert up_again(served.url) == [0, 1]
        assert len(asyncio.run(whole_answers(served.url, 4))) == 4
        children = children_of(served.process.pid)
        with gone(children[0]) as first, gone(children[1]) as second:
            served.process.kill()
            assert first(20.0)
            assert second(20.0)


async def streams_with_a_kill(url: str, pid: int) -> list[tuple[str, str]]:
    """How each of four streams ended, and on which replica; all have begun when `pid` is killed."""
    begun = asyncio.Barrier(5)

    async def stream(client: httpx.AsyncClient, number: int) -> tuple[str, str]:
        body = chat(f"question {number} " * 20) | {
            "stream": True, "max_tokens": 1500, "min_tokens": 1500, "ignore_eos": True,
        }  # fmt: skip
        async with client.stream("POST", CHAT, json=body) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            await begun.wait()
            rest = [line async for line in lines if line]
        return outcome(rest[-1]), answer.headers["x-loadkit-replica"]

    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as client:
        tasks = [asyncio.create_task(stream(client, number)) for number in range(4)]
        await begun.wait()
        os.kill(pid, signal.SIGKILL)
        return await asyncio.gather(*tasks)


def up_again(url: str) -> list[int]:
    """Replicas that are up, once all are, or after a minute."""
    deadline = time.monotonic() + 60
    up: list[int] = []
    while len(up) < NUM_REPLICAS and time.monotonic() < deadline:
        time.sleep(0.1)
        up = httpx.get(f"{url}/health", trust_env=False).json()["up"]
    return up


def outcome(last_line: str) -> str:
    if last_line == "data: [DONE]":
        return "whole"
    assert json.loads(last_line[6:])["error"]["code"] == "replica_lost"
    return "lost"


async def whole_answers(url: str, count: int) -> list[tuple[int, str]]:
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as client:
        made = (client.post(CHAT, json=chat(f"{n} more") | {"max_tokens": 2}) for n in range(count))
        answers = await asyncio.gather(*made)
    return [(answer.status_code, answer.headers["x-loadkit-replica"]) for answer in answers]


def chat(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "temperature": 0}


def children_of(pid: int) -> list[int]:
    """In the order of their start, which is that of the replicas."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    found = [int(c) for task in tasks for c in (task / "children").read_text().split()]
    return sorted(found)


class gone:
    """Whether a process that is not ours ends in time; opened while it lives."""

    def __init__(self, pid: int) -> None:
        self._handle = os.pidfd_open(pid)

    def __enter__(self) -> Any:
        return self

    def __call__(self, timeout_s: float) -> bool:
        return bool(select.select([self._handle], [], [], timeout_s)[0])

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)


@pytest.fixture(scope="module")
def urls(model: Path) -> Iterator[list[str]]:
    """Two engines with room for a part of what the conversations hold."""
    command = [*LOADKIT, "serve"]
    options = ["--model", str(model), "--num-blocks", "1200", "--served-model-name", "tiny"]
    with replicas([options] * NUM_REPLICAS, command) as (_, found):
        yield found


def test_the_order_of_routings_on_real_engines(urls: list[str]) -> None:
    """The conversation profile, one request at a time, its own replies in the history."""
    rates = [asyncio.run(hit_rate(urls, name)) for name in ("random", "sticky", "prefix-aware")]
    assert rates[0] < rates[1] < rates[2], rates


async def hit_rate(urls: list[str], routing: str) -> float:
    """Cached tokens / prompt tokens, as the engines report them."""
    fleet = Fleet([Replica(number, url) for number, url in enumerate(urls)])
    router = Router(fleet, make_routing(routing, len(urls), seed=1))
    cached = total = 0
    transport = httpx.ASGITransport(app=router)  # type: ignore[arg-type]
    async with router.client, httpx.AsyncClient(transport=transport, base_url="http://r") as client:
        assert (await client.post("/reset_prefix_cache")).json() == {"success": True}
        for body, session, history in turns():
            answer = (await client.post(CHAT, json=body, headers={"x-session-id": session})).json()
            history.append(answer["choices"][0]["message"])
            cached += answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            total += answer["usage"]["prompt_tokens"]
    return cached / total


def turns() -> Iterator[tuple[dict[str, Any], str, list[Any]]]:
    """First turns of all sessions, then second ones, and so on; a reply is appended by the caller."""
    profile = load("chat-assistant", ["traffic.sessions=16"])
    sessions = build_plan(profile).sessions
    histories: list[list[Any]] = [[] for _ in sessions]
    for number in range(4):
        for session, history in zip(sessions, histories, strict=True):
            if number < len(session.turns):
                history.extend(session.turns[number].messages)
                yield body_of(history), session.session, history


def body_of(history: list[Any]) -> dict[str, Any]:
    return {"messages": history, "max_tokens": 4, "temperature": 0}
