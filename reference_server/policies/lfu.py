"""Least frequently used, with and without aging."""

from __future__ import annotations

from reference_server.policies.base import Policy, Scored


class LFU(Policy):
    """Uses + clock: LFU with dynamic aging (Arlitt et al. 1999), so that yesterday's favourites
    do not stay. A prompt sent again and again counts each time: LFU keeps replays."""

    name, ages = "lfu", True

    def score(self, node: Scored, clock: float) -> float:
        return clock + node.num_uses


class PlainLFU(Policy):
    """Uses alone."""

    name = "lfu-plain"

    def score(self, node: Scored, clock: float) -> float:
        return float(node.num_uses)
