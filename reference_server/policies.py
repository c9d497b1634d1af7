"""What to evict: a policy is one score; the leaf with the lowest score goes first."""

from __future__ import annotations

from typing import Protocol


class Scored(Protocol):
    """What a policy may look at. `last` is the tick of the last touch, unique and increasing."""

    last: int


class Policy(Protocol):
    """`score(node, clock)`: lowest goes first; `clock` is the score of the last victim.

    A score must not change while a node is idle: it is taken once, when the node becomes a leaf
    that nobody uses.
    """

    name: str

    def score(self, node: Scored, clock: float) -> float: ...


class LRU:
    """Least recently used. With tail-first touches this is a stack algorithm: what a pool of N
    pages holds is always a subset of what a pool of N + 1 would hold."""

    name = "lru"

    def score(self, node: Scored, clock: float) -> float:
        return node.last
