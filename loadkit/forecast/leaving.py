"""The leaving probability: where does a copy of a session stop following its template?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadkit.analysis.nodes import BoolArray
from loadkit.core.trace import FloatArray, IntArray
from loadkit.forecast.discovery import RATES, Discovery, discovery, poisson_table
from loadkit.forecast.first_touches import FirstTouches

MAX_COMPANIONS = 40  # nodes with more are met by every copy
_BISECTIONS = 50


@dataclass(frozen=True, slots=True)
class Leaving:
    """phi(m): the probability that a copy has something of its own in place of a node with m
    companions. table[0] is of class B, table[1] of class A; the last column is m > 40."""

    table: FloatArray  # (2, MAX_COMPANIONS + 2)
    alone: tuple[float, float]  # nu of class B and class A

    def of(self, others: IntArray, at_start: BoolArray) -> FloatArray:
        """phi of nodes or prompts with these companions and classes."""
        found: FloatArray = self.table[
            at_start.astype(np.int64), np.clip(others, 0, MAX_COMPANIONS + 1)
        ]
        return found


@dataclass(frozen=True, slots=True)
class Laws:
    """The discovery laws of class B and class A, in this order; None for a class without touches."""

    classes: tuple[Discovery | None, Discovery | None]

    def alone(self, traffic: float, kind: str = "estimate") -> tuple[float, float]:
        """nu a class. kind: estimate, private (nothing new is shared) or shareable."""
        return (self._alone(0, traffic, kind), self._alone(1, traffic, kind))

    def alpha(self) -> float | None:
        """Weight of the mixture law, mean of the classes by what is alone in each."""
        known = [law for law in self.classes if law is not None and law.lone_share > 0]
        mass = sum(law.total * law.lone_share for law in known)
        return sum(w.alpha * w.total * w.lone_share for w in known) / mass if mass else None

    def _alone(self, index: int, traffic: float, kind: str) -> float:
        law = self.classes[index]
        if law is None or kind == "private":
            return 1.0
        return law.most_shareable(traffic) if kind == "shareable" else law.mean_alone(traffic)


def laws_of(touches: FirstTouches) -> Laws:
    """Fit both classes (lazily: nothing is computed before it is asked for)."""
    at_start = touches.at_start
    later, start = (
        discovery(touches.others[chosen], touches.weight[chosen])
        for chosen in (~at_start, at_start)
    )
    return Laws((later, start))


def leaving(laws: Laws, alone: tuple[float, float]) -> Leaving:
    """phi so that copies create as much new weight as the discovery law says (`alone` is nu)."""
    rows = [_row(law, nu) for law, nu in zip(laws.classes, alone, strict=True)]
    return Leaving(np.stack(rows), alone)


def _row(law: Discovery | None, nu: float) -> FloatArray:
    row = np.zeros(MAX_COMPANIONS + 2)
    if law is None or not law.lone_share:
        row[0] = 1.0
        return row
    mass = np.zeros(MAX_COMPANIONS + 1)
    few = law.companions <= MAX_COMPANIONS
    mass[law.companions[few]] = law.mass[few]
    row[:-1] = _scaled(_novelty(law), mass, law.lone_share * nu * law.total)
    return row


def _novelty(law: Discovery) -> FloatArray:
    """g(m) = 1 - E[rate | m] / (m + 1), not below 0 and not increasing.

    A session's node has m companions, itself making m + 1 touches, where the mixture expects only
    E[rate | m] from another draw of the same traffic: the excess is what would be new each time.
    """
    m = np.arange(MAX_COMPANIONS + 1)
    joint = poisson_table(m) * law.mixture
    expected = joint @ RATES / np.maximum(joint.sum(axis=1), 1e-300)
    return np.minimum.accumulate(np.clip(1 - expected / (m + 1), 0, 1))


def _scaled(novelty: FloatArray, mass: FloatArray, target: float) -> FloatArray:
    """min(1, psi g) with psi, by bisection, such that the weight that leaves is `target`."""
    low, high = 0.0, 1e4
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if np.minimum(1, middle * novelty) @ mass < target:
            low = middle
        else:
            high = middle
    return np.minimum(1, high * novelty)
