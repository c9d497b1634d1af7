"""Least recently used."""

from __future__ import annotations

from reference_server.policies.base import Policy, Scored


class LRU(Policy):
    """Recency alone. With tail-first touches this is a stack algorithm: what a pool of N pages
    holds is always a subset of what a pool of N + 1 would hold."""

    name = "lru"

    def score(self, node: Scored, clock: float) -> float:
        return 0.0
