"""The leaving probability: where does a copy of a session stop following its template?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadkit.core.trace import FloatArray, IntArray
from loadkit.forecast.discovery import RATES, Discovery, discovery, poisson_table
from loadkit.forecast.first_touches import NUM_KINDS, FirstTouches

MAX_COMPANIONS = 40  # nodes with more are met by every copy
_BISECTIONS = 50
_MIN_TOUCHES = 500


@dataclass(frozen=True, slots=True)
class Leaving:
    """phi(m): the probability that a copy has something of its own in place of what m other sessions
    have too. One row a kind, the last column is m > 40."""

    table: FloatArray  # (kinds, MAX_COMPANIONS + 2)

    def of(self, others: IntArray, kind: IntArray) -> FloatArray:
        """phi of nodes or prompts with these companions and kinds."""
        found: FloatArray = self.table[kind, np.clip(others, 0, MAX_COMPANIONS + 1)]
        return found


@dataclass(frozen=True, slots=True)
class Laws:
    """The discovery law of each kind; None for a kind without touches."""

    kinds: tuple[Discovery | None, ...]

    def alpha(self) -> float | None:
        """Weight of the mixture law, mean of the kinds by what is alone in each."""
        known = [law for law in self.kinds if law is not None and law.lone_share > 0]
        mass = sum(law.total * law.lone_share for law in known)
        return sum(w.alpha * w.total * w.lone_share for w in known) / mass if mass else None

    def alone(self, traffic: float, assume: str = "estimate") -> list[float]:
        """nu of each kind. assume: estimate, private (nothing new is shared) or shareable."""
        return [self._alone(law, traffic, assume) for law in self.kinds]

    def leaving(self, traffic: float, assume: str = "estimate") -> Leaving:
        """phi so that copies create as much new weight as each kind's law says."""
        alone = self.alone(traffic, assume)
        rows = [_row(law, nu) for law, nu in zip(self.kinds, alone, strict=True)]
        return Leaving(np.stack(rows))

    @staticmethod
    def _alone(law: Discovery | None, traffic: float, assume: str) -> float:
        if law is None or assume == "private":
            return 1.0
        return law.most_shareable(traffic) if assume == "shareable" else law.mean_alone(traffic)


def node_laws(touches: FirstTouches) -> Laws:
    """Laws of nodes by kind. Kinds with few touches are judged with the next shallower one."""
    merged = _merged_kinds(np.bincount(touches.kind, minlength=NUM_KINDS))
    kind = merged[touches.kind]
    fitted = [
        discovery(touches.others[kind == k], touches.weight[kind == k]) for k in range(NUM_KINDS)
    ]
    return Laws(tuple(fitted[merged[k]] for k in range(NUM_KINDS)))


def prompt_laws(touches: FirstTouches, prompt_tokens: IntArray) -> Laws:
    """Laws of whole prompts: of later turns, and of those that open sessions.

    Whether a document is met again says little about whether its reader asks the same question, so
    replays have laws of their own.
    """
    opens = touches.opens_session
    return Laws(
        tuple(
            discovery(touches.prompt_others[chosen], prompt_tokens[chosen])
            for chosen in (~opens, opens)
        )
    )


def _merged_kinds(counts: IntArray) -> IntArray:
    """(kinds,) the kind whose law each kind uses: its own, or that of the last big enough one."""
    merged = np.arange(len(counts))
    for kind in range(2, len(counts)):
        if counts[kind] < _MIN_TOUCHES:
            merged[kind] = merged[kind - 1]
    return merged


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
    joint = poisson_table(tuple(m.tolist())) * law.mixture
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
