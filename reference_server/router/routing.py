"""Who gets the next request: prefix-aware, sticky or random.

prefix-aware is the rule that loadkit.forecast.prefix_router simulates, under the same names.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from loadkit.core.errors import InputError
from reference_server.router.block_index import BlockIndex
from reference_server.router.fleet import Replica
from reference_server.router.prompt import RoutedPrompt
from reference_server.router.ring import LOAD_BOUND, Ring

RoutingName = Literal["prefix-aware", "sticky", "random"]
# cost = new blocks + 0.5 x queued blocks
QUEUE_WEIGHT = 0.5
# The byte blocks of the router and the token blocks of an engine do not end in the same places: only
# a reply that found less than this share of what was expected says that blocks were evicted.
LOST_BELOW = 0.5


@dataclass(slots=True)
class Choice:
    """matched of the prompt's blocks are expected on the replica. ages: see BlockIndex.ages."""

    replica: Replica
    prompt: RoutedPrompt | None
    matched: int = 0
    ages: list[int] = field(default_factory=list)

    @property
    def new(self) -> int:
        return 0 if self.prompt is None else self.prompt.length - self.matched


class Routing(Protocol):
    """`pick` among replicas that are up, at least one; `learn` from what the reply reports."""

    name: RoutingName

    def pick(self, prompt: RoutedPrompt | None, up: Sequence[Replica]) -> Choice: ...

    def learn(self, choice: Choice, prompt_tokens: int, cached_tokens: int) -> None: ...

    def num_index_blocks(self) -> int: ...


class Stateless:
    """What routings that remember nothing have in common."""

    def learn(self, choice: Choice, prompt_tokens: int, cached_tokens: int) -> None:
        return

    def num_index_blocks(self) -> int:
        return 0


class Random(Stateless):
    name: RoutingName = "random"

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def pick(self, prompt: RoutedPrompt | None, up: Sequence[Replica]) -> Choice:
        return Choice(self._random.choice(up), prompt)


class Sticky(Stateless):
    """A session stays where the bounded-load ring puts it."""

    name: RoutingName = "sticky"

    def __init__(self, num_replicas: int) -> None:
        self._ring = Ring(num_replicas)

    def pick(self, prompt: RoutedPrompt | None, up: Sequence[Replica]) -> Choice:
        if prompt is None:
            return Choice(min(up, key=lambda r: r.num_in_flight), None)
        return Choice(self._ring.pick(prompt.affinity, up), prompt)


class PrefixAware:
    """The least new + 0.5 x queued blocks; ties go to the one that computed least.

    A prompt too short to have a block is left to the ring.
    """

    name: RoutingName = "prefix-aware"

    def __init__(self, num_replicas: int, index: BlockIndex | None = None) -> None:
        self.index = BlockIndex() if index is None else index
        self._fallback = Sticky(num_replicas)

    def pick(self, prompt: RoutedPrompt | None, up: Sequence[Replica]) -> Choice:
        if prompt is None or not prompt.blocks:
            return self._fallback.pick(prompt, up)
        matched = self.index.matched(prompt.blocks, up)
        best = cheapest(prompt.length, matched, up)
        choice = Choice(best, prompt, matched[best.index], self.index.ages(prompt.blocks, best))
        best.computed += choice.new
        self.index.remember(prompt.blocks, best)
        return choice

    def learn(self, choice: Choice, prompt_tokens: int, cached_tokens: int) -> None:
        """How much the replica forgets, from the blocks that it had or had no more.

        Fewer cached than expected: it forgets blocks as old as the first one lost. More: it keeps
        even those that were taken to be forgotten.
        """
        if choice.prompt is None or prompt_tokens < 1:
            return
        replica, ages = choice.replica, choice.ages
        found = int(choice.prompt.length * min(1.0, cached_tokens / prompt_tokens))
        if found < LOST_BELOW * choice.matched:
            lost = max(1, ages[found])
            replica.room = lost if replica.room is None else min(replica.room, lost)
        elif found > choice.matched and replica.room is not None and ages:
            replica.room = max(replica.room, ages[min(found, len(ages)) - 1])

    def num_index_blocks(self) -> int:
        return len(self.index)


def cheapest(length: int, matched: dict[int, int], up: Sequence[Replica]) -> Replica:
    """Least cost among replicas within the load bound, which holds for at least one."""
    bound = LOAD_BOUND * sum(r.queued for r in up) / len(up) + length
    within = [r for r in up if r.queued <= bound]
    return min(
        within,
        key=lambda r: (length - matched[r.index] + QUEUE_WEIGHT * r.queued, r.computed, r.index),
    )


def make_routing(name: str, num_replicas: int, seed: int = 0) -> Routing:
    if name == "prefix-aware":
        return PrefixAware(num_replicas)
    if name == "sticky":
        return Sticky(num_replicas)
    if name == "random":
        return Random(seed)
    known = ", ".join(get_args(RoutingName))
    raise InputError(f"expected one of {known}, got {name!r}", where="--routing")
