"""Which routing hits more, on the conversation profile, before replicas that count blocks."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from itertools import product
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
SEEDS, ROOMS = (1, 2, 3), (None, 800, 400, 150)
ROUTINGS = ("random", "sticky", "prefix-aware")
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


@pytest.fixture(scope="module", params=SEEDS)
def timed(request: pytest.FixtureRequest) -> list[tuple[float, RoutedPrompt]]:
    return requests_of(request.param)


def requests_of(seed: int) -> list[tuple[float, RoutedPrompt]]:
    """All requests of the bundled profile under another seed, in the order of their times."""
    profile = load("chat-assistant").model_copy(update={"seed": seed})
    found = [row for session in build_plan(profile).sessions for row in prompts_of(session)]
    return sorted(found, key=lambda row: row[0])


class World:
    """Replicas that compute one prompt after the other, busy about UTILISATION of the time. A reply ends DECODE_S after its prompt is computed.

    is_idle: every request finds nobody at work.
    """

    def __init__(
        self, timed: list[tuple[float, RoutedPrompt]], room: int | None, is_idle: bool
    ) -> None:
        self.is_idle, self.number = is_idle, 0
        self.replicas = [Replica(n, "") for n in range(NUM_REPLICAS)]
        self.caches = [BlockCache(room) for _ in self.replicas]
        self.free_s = [0.0] * NUM_REPLICAS
        self.given: list[set[int]] = [set() for _ in self.replicas]
        self.computed = [0] * NUM_REPLICAS
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
        self.given[replica.index] |= set(prompt.blocks)
        self.computed[replica.index] += len(prompt.blocks) - found
        begin = max(self.free_s[replica.index], at)
        computed_s = begin + (prompt.length - found) / self.blocks_per_s
        self.free_s[replica.index] = computed_s
        if not self.is_idle:
            add(replica, choice.new, 1)
            self._at(computed_s, partial(add, replica, -choice.new, 0))
            self._at(computed_s + DECODE_S, partial(add, replica, 0, -1))
        routing.learn(choice, prompt.length, found)
        return found

    def _at(self, when: float, what: Callable[[], None]) -> None:
        self.number += 1
        heapq.heappush(self.ends, (when, self.number, what))

    def spread(self) -> tuple[list[int], list[int]]:
        """Distinct blocks that each replica was given, and blocks that it computed more than once."""
        held = [len(blocks) for blocks in self.given]
        return held, [made - num for made, num in zip(self.computed, held, strict=True)]


def add(replica: Replica, queued: int, in_flight: int) -> None:
    replica.queued += queued
    replica.num_in_flight += in_flight


def hit_rate(
    timed: list[tuple[float, RoutedPrompt]], routing: str, room: int | None, is_idle: bool = False
) -> float:
    """Hit blocks / blocks."""
    return played(timed, routing, room, is_idle)[0]


def played(
    timed: list[tuple[float, RoutedPrompt]], routing: str, room: int | None, is_idle: bool
) -> tuple[float, World]:
    world, router = World(timed, room, is_idle), make_routing(routing, NUM_REPLICAS, seed=1)
    hit = sum(world.route(router, at, prompt) for at, prompt in timed)
    return hit / sum(prompt.length for _, prompt in timed), world


@pytest.mark.parametrize("room", ROOMS)
def test_random_hits_less_than_sticky_and_sticky_less_than_prefix_aware(
    timed: list[tuple[float, RoutedPrompt]], room: int | None
) -> None:
    """At a capacity that holds everything, and at three that do not, in blocks of each replica."""
    rates = [hit_rate(timed, name, room) for name in ROUTINGS]
    assert rates[0] < rates[1] < rates[2], rates


def test_without_any_load_all_that_fits_is_hit_most_by_prefix_aware_too(
    timed: list[tuple[float, RoutedPrompt]],
) -> None:
    """Sticky's bound plays no part then; the first turns' system prompts make the difference."""
    rates = [hit_rate(timed, name, None, is_idle=True) for name in ROUTINGS]
    assert rates[0] < rates[1] < rates[2], rates


def test_without_any_load_prefix_aware_copies_nothing_and_pays_where_it_gathers(
    timed: list[tuple[float, RoutedPrompt]],
) -> None:
    """Why sticky may hit more there: all sessions of a system prompt are on one replica, and the one
    with the most popular computes again what its cache has no room for, the others next to nothing.
    Sticky holds a few blocks twice and has no replica as full."""
    (_, gathers), (_, spreads) = (
        played(timed, name, 400, is_idle=True) for name in ("prefix-aware", "sticky")
    )
    (gathered, again), (spread, _) = gathers.spread(), spreads.spread()
    assert sum(gathered) == len(set().union(*gathers.given))
    assert sum(spread) > sum(gathered)
    assert max(gathered) > 1.2 * max(spread)
    fullest = gathered.index(max(gathered))
    assert again[fullest] > 0.8 * sum(again)


def main() -> None:
    """`PYTHONPATH=tests/support python tests/unit/router/test_hit_rate_order.py` prints the rates."""
    print("load  seed  blocks  random  sticky  prefix-aware  its blocks, and computed again")
    for is_idle, seed, room in product((False, True), SEEDS, ROOMS):
        timed = requests_of(seed)
        rates = "  ".join(f"{hit_rate(timed, name, room, is_idle):6.3f}" for name in ROUTINGS)
        held, again = played(timed, "prefix-aware", room, is_idle)[1].spread()
        load = "idle" if is_idle else "busy"
        print(f"{load}  {seed:4}  {room or 'all':>6}  {rates}        {held}, {again}")


if __name__ == "__main__":
    main()
