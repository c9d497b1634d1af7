"""Building blocks of synthetic production: who sends what when, as chains of block ids.

A chain is a list of segments, arrays of ids that always come together. A segment's key must name
all that stands before it, so that ids are prefix chains.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from loadkit.core.trace import Trace

Chain = list[npt.NDArray[np.int64]]
BLOCK_SIZE = 128
WINDOW_S = 3600.0


class Recorder:
    """Collects requests; segments with equal keys get equal ids."""

    def __init__(self) -> None:
        self._segments: dict[Hashable, npt.NDArray[np.int64]] = {}
        self._next_id = 0
        self._sent: list[tuple[float, int, Chain]] = []
        self.num_sessions = 0

    def segment(self, key: Hashable, length: int) -> npt.NDArray[np.int64]:
        """The ids named `key`; `length` counts only when the key is new."""
        if key not in self._segments:
            self._segments[key] = self._next_id + np.arange(max(1, length))
            self._next_id += max(1, length)
        return self._segments[key]

    def new_session(self) -> int:
        self.num_sessions += 1
        return self.num_sessions - 1

    def send(self, time_s: float, session: int, chain: Chain) -> None:
        """A request; outside the window it is not logged."""
        if 0 <= time_s < WINDOW_S:
            self._sent.append((time_s, session, list(chain)))

    def talk(
        self,
        random: np.random.Generator,
        start_s: float,
        chain: Chain,
        *,
        turns: int,
        think_s: float,
        grows: float = 4.0,
        session: int | None = None,
    ) -> Chain:
        """A session that sends `chain`, then again and again with new blocks of its own at its end."""
        who = self.new_session() if session is None else session
        chain, time_s = list(chain), start_s
        for turn in range(turns):
            length = 1 + int(random.pareto(1.5) * grows) % 30
            chain.append(self.segment(("own", who, turn, len(chain)), length))
            self.send(time_s, who, chain)
            time_s += float(random.lognormal(np.log(think_s), 0.9)) + 3
        return chain

    def trace(self) -> Trace:
        """The log. Prompts end in a partial block whose length the last id tells, so that equal
        chains are equal prompts."""
        self._sent.sort(key=lambda request: request[0])
        chains = [np.concatenate(chain) for _, _, chain in self._sent]
        lengths = np.array([len(chain) for chain in chains])
        ids = np.unique(np.concatenate(chains), return_inverse=True)[1].reshape(-1)
        ptr = np.concatenate([[0], np.cumsum(lengths)])
        last = ids[ptr[1:] - 1]
        session = np.unique([who for _, who, _ in self._sent], return_inverse=True)[1]
        return Trace(
            block_size=BLOCK_SIZE,
            prompt_tokens=lengths * BLOCK_SIZE + 1 + last % (BLOCK_SIZE - 1),
            block_ptr=ptr,
            block_ids=ids,
            prompt_key=last,
            session=session.reshape(-1),
            num_sessions=int(session.max()) + 1,
            sessions_inferred=False,
            output_tokens=np.full(len(chains), -1),
            arrival_s=np.array([time_s for time_s, _, _ in self._sent]),
        )


class Zipf:
    """Ranks 0..n-1 with probability ~ 1 / (rank + 1)^exponent, drawn by binary search."""

    def __init__(self, n: int, exponent: float):
        weight = np.arange(1, n + 1) ** -float(exponent)
        self._upto = np.cumsum(weight / weight.sum())

    def draw(self, random: np.random.Generator) -> int:
        return min(int(np.searchsorted(self._upto, random.random())), len(self._upto) - 1)


def poisson_times(random: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Even arrivals over the window, sorted."""
    return np.sort(random.random(count) * WINDOW_S)


def diurnal_times(
    random: np.random.Generator, count: int, amplitude: float
) -> npt.NDArray[np.float64]:
    """Arrivals whose rate swings once over the window."""
    times = random.random(8 * count) * WINDOW_S
    rate = 1 + amplitude * np.sin(2 * np.pi * times / WINDOW_S - 1)
    kept = times[random.random(len(times)) * (1 + amplitude) < rate]
    return np.sort(kept[:count])


def pareto_length(random: np.random.Generator, shape: float, scale: float, most: int) -> int:
    """1 + a heavy-tailed number of blocks, at most `most`."""
    return int(min(1 + random.pareto(shape) * scale, most))


def lengths(seed: int, low: int, high: int, count: int) -> list[int]:
    """Lengths of system prompts and the like, the same in every draw of a world."""
    drawn: Any = np.random.default_rng(seed).integers(low, high, count)
    return [int(length) for length in drawn]


def spread(values: Iterable[float]) -> list[float]:
    """Times inside the window."""
    return [value for value in values if 0 <= value < WINDOW_S]
