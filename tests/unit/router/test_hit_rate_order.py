"""Which routing hits more, on the conversation profile, before replicas that count blocks."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
import pytest
from stub_replicas import BlockCache

from loadkit.profiles import load
from loadkit.traffic.build import build_plan
from loadkit.traffic.plan import SessionPlan
from reference_server.router.fleet import Replica
from reference_server.router.prompt import RoutedPrompt, read_prompt
from reference_server.router.routing import Routing, make_routing

NUM_REPLICAS = 4
REPLY = "A reply of some sentences, which the client sends back with its next turn. " * 6
SERVICE_S = 2.0
# As in loadkit.forecast.prefix_router; MISSED: share of the blocks that is about what must be computed.
UTILISATION, MISSED, DECODE_S = 0.3, 0.4, 2.0


def prompts_of(session: SessionPlan) -> list[tuple[float, RoutedPrompt]]:
    """Time and prompt of each turn; a reply takes SERVICE_S and has one text."""
    at, history, found = session.start_s, [], []
    for number, turn in enumerate(session.turns):
        at += turn.think_s
        history += list(turn.messages)
        prompt = read_prompt({b"x-session-id": session.session.encode()}, body_of(history))
        assert prompt is not None
        found.append((at, prompt))
        history.append({"role": "assistant", "content": f"{session.session} {number} {REPLY}"})
        at += SERVICE_S
    return found


def body_of(messages: list[Any]) -> bytes:
    return orjson.dumps({"messages": messages})


@pytest.fixture(scope="module", params=[1, 2, 3])
def timed(request: pytest.FixtureRequest) -> list[tuple[float, RoutedPrompt]]:
    """All requests of the bundled profile under another seed, in the order of their times."""
    profile = load("chat-assistant").model_copy(update={"seed": request.param})
    found = [row for session in build_plan(profile).sessions for row in prompts_of(session)]
    return sorted(found, key=lambda row: row[0])


class World:
    """Replicas that compute one prompt after the other, busy UTILISATION of the time, with random
    routing a little more. A reply ends DECODE_S after its prompt is computed."""

    def __init__(self, timed: list[tuple[float, RoutedPrompt]], room: int | None) -> None:
        self.replicas = [Replica(n, "") for n in range(NUM_REPLICAS)]
        self.caches = [BlockCache(room) for _ in self.replicas]
        self.free_s = [0.0] * NUM_REPLICAS
        blocks = sum(prompt.length for _, prompt in timed) * MISSED
        self.blocks_per_s = blocks / timed[-1][0] / UTILISATION / NUM_REPLICAS
        self.ends: list[tuple[float, int, Callable[[], None]]] = []

    def route(self, routing: Routing, at: float, prompt: RoutedPrompt) -> int:
        """Blocks hit."""
        while self.ends and self.ends[0][0] <= at:
            heapq.heappop(self.ends)[2]()
        choice = routing.pick(prompt, self.replicas)
        replica = choice.replica
        found = self.caches[replica.index].hit(prompt.blocks)
        begin = max(self.free_s[replica.index], at)
        computed_s = begin + (prompt.length - found) / self.blocks_per_s
        self.free_s[replica.index] = computed_s
        add(replica, choice.new, 1)
        self._at(computed_s, partial(add, replica, -choice.new, 0))
        self._at(computed_s + DECODE_S, partial(add, replica, 0, -1))
        routing.learn(choice, prompt.length, found)
        return found

    def _at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.ends, (when, id(what), what))


def add(replica: Replica, queued: int, in_flight: int) -> None:
    replica.queued += queued
    replica.num_in_flight += in_flight


def hit_rate(timed: list[tuple[float, RoutedPrompt]], routing: str, room: int | None) -> float:
    """Hit blocks / blocks."""
    world, router = World(timed, room), make_routing(routing, NUM_REPLICAS, seed=1)
    hit = sum(world.route(router, at, prompt) for at, prompt in timed)
    return hit / sum(prompt.length for _, prompt in timed)


@pytest.mark.parametrize("room", [None, 800, 400, 150])
def test_random_hits_less_than_sticky_and_sticky_less_than_prefix_aware(
    timed: list[tuple[float, RoutedPrompt]], room: int | None
) -> None:
    """At a capacity that holds everything, and at three that do not, in blocks of each replica."""
    rates = [hit_rate(timed, name, room) for name in ("random", "sticky", "prefix-aware")]
    assert rates[0] < rates[1] < rates[2], rates
