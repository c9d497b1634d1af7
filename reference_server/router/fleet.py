"""The replicas as the router sees them: alive or not, and how much work lies before them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Replica:
    """queued: new blocks of requests that gave no byte yet. computed: all new blocks routed to it.

    url: '' while it has none, having ended: somebody else may listen where it was.

    room: blocks that it computes before it has forgotten what it computed first; None: not known,
    nothing is taken to be forgotten. Counts are in the router's blocks.
    """

    index: int
    url: str
    is_up: bool = True
    num_failures: int = 0
    num_in_flight: int = 0
    queued: int = 0
    computed: int = 0
    room: int | None = None
    # Stamps below it are from before the replica was reset or lost: its cache is empty since.
    empty_since: int = 0
    # Requests without a first byte: given up, to be tried elsewhere, when it is taken out.
    waiting: set[asyncio.Task[Any]] = field(default_factory=set)

    def forget(self) -> None:
        self.computed += 1
        self.empty_since = self.computed
        self.room = None

    def take_out(self) -> None:
        """It gets no requests until it is found up, and is empty then."""
        if self.is_up:
            self.is_up = False
            self.forget()
            for task in self.waiting:
                task.cancel()

    def has_kept(self, stamp: int) -> bool:
        is_recent = self.room is None or self.computed - stamp <= self.room
        return stamp >= self.empty_since and is_recent


@dataclass(slots=True)
class Fleet:
    replicas: list[Replica] = field(default_factory=list)

    def up(self, without: frozenset[int] = frozenset()) -> list[Replica]:
        return [r for r in self.replicas if r.is_up and r.index not in without]
