"""What the analyzer expects the cache to do with what was sent, request by request."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from loadkit.core.trace import IntArray

Rows = npt.NDArray[np.bool_]
# What run.json keeps of the analysis of what was sent, as it is where there is none.
OF_THE_LOG: dict[str, Any] = {"curve": [], "append_only": None, "diversity": None}


# Why a miss of something reusable is not explained by eviction: the cache is off, states and windows
# are kept elsewhere, its size is not known, it is one of several, or the prediction at its size hits.
Unexplained = Literal[
    "caching_off", "kept_places", "capacity_unknown", "several_caches", "beyond_eviction"
]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Columns over the answered requests in order of sending; all arrays are (n,) token counts.

    replay: "same_session", "cross_session" or None. reusable_tokens: hit in an infinite cache that
    starts empty. resident_tokens: hit at the server's capacity (LRU); None: capacity not known.
    possible_tokens: the most that may have been found, in whatever order the server computed what was
    under way together (`runs.plausible`); None: not counted.
    setup: what the server was taken for, of those that its answers cannot tell apart otherwise.
    drawn_tokens: (d, n) the same in orders of the engine's work that the client cannot tell from the
    likeliest; no rows: there is one order; None: not simulated.
    exact False: hits also depend on what no client can see, such as who got which slot.
    caching_off: the server says so. several_caches: nobody tells which of them took a request.
    by_place: resident_tokens are those of the few places where states and windows are kept.
    """

    prompt_tokens: IntArray
    replay: tuple[str | None, ...]
    own_prefix_tokens: IntArray
    reusable_tokens: IntArray
    resident_tokens: IntArray | None
    setup: str | None = None
    exact: bool = True
    drawn_tokens: IntArray | None = None
    possible_tokens: IntArray | None = None
    caching_off: bool = False
    several_caches: bool = False
    by_place: bool = False

    @property
    def unexplained(self) -> Unexplained:
        """Why a miss of something reusable is not explained, if eviction does not explain it."""
        if self.caching_off:
            return "caching_off"
        if self.by_place:
            return "kept_places"
        if self.resident_tokens is not None:
            return "beyond_eviction"
        return "several_caches" if self.several_caches else "capacity_unknown"

    def evicted_tokens(self, row: int) -> int:
        """Reusable tokens of a request that eviction explains, in the order of the engine's work that
        explains most; 0 where that cannot be told."""
        if self.resident_tokens is None or self.caching_off or self.by_place:
            return 0
        drawn = [] if self.drawn_tokens is None else self.drawn_tokens[:, row].tolist()
        least = min(int(tokens) for tokens in (self.resident_tokens[row], *drawn))
        return max(0, int(self.reusable_tokens[row]) - least)

    @property
    def expected_tokens(self) -> IntArray:
        """Hit tokens at the server's capacity where that is known, else in an infinite cache."""
        return self.reusable_tokens if self.resident_tokens is None else self.resident_tokens

    @property
    def range_tokens(self) -> tuple[int, int] | None:
        """The least and the most hit tokens in all, over every order that is possible; equal where there
        is one order. None: the capacity is not known, or hits depend on what was not drawn."""
        if self.resident_tokens is None or (not self.exact and self.drawn_tokens is None):
            return None
        likeliest = int(self.resident_tokens.sum())
        totals = [] if self.drawn_tokens is None else self.drawn_tokens.sum(axis=1).tolist()
        return min([likeliest, *totals]), max([likeliest, *totals])

    def only(self, rows: Rows) -> Prediction:
        """The rows where `rows` is True; what came before them was in the cache all the same."""
        return replace(
            self,
            prompt_tokens=self.prompt_tokens[rows],
            replay=tuple(kind for kind, kept in zip(self.replay, rows, strict=True) if kept),
            own_prefix_tokens=self.own_prefix_tokens[rows],
            reusable_tokens=self.reusable_tokens[rows],
            resident_tokens=_only(self.resident_tokens, rows),
            drawn_tokens=None if self.drawn_tokens is None else self.drawn_tokens[:, rows],
            possible_tokens=_only(self.possible_tokens, rows),
        )


@dataclass(slots=True)
class Predictions:
    """One prediction for the split, a second one to name what re-tokenising replies costs.

    best: replies as the generated token ids where the server gave them, else as text.
    from_text: every reply as re-tokenised text; None if no reply came with token ids.
    log: what `loadkit analyze --json` says of what was sent (`OF_THE_LOG`), without any text.
    overlap: (n,) hit tokens at the capacity when running requests hold their blocks, as they do
    on a server: those of `best` where it is of the server's own pool; else None.
    unruled: (n,) reusable tokens without the rule that a prompt's last token is always computed.
    matched: (n,) tokens of the longest prefix seen before, blocks aside; None: too many to count.
    """

    best: Prediction
    from_text: Prediction | None
    log: dict[str, Any] = field(default_factory=lambda: dict(OF_THE_LOG))
    overlap: IntArray | None = None
    unruled: IntArray | None = None
    matched: IntArray | None = None

    @property
    def overlap_tokens(self) -> int | None:
        return None if self.overlap is None else int(self.overlap.sum())

    def only(self, rows: Rows) -> Predictions:
        """The predictions for the requests where `rows` is True."""
        return Predictions(
            self.best.only(rows),
            None if self.from_text is None else self.from_text.only(rows),
            self.log,
            _only(self.overlap, rows),
            _only(self.unruled, rows),
            _only(self.matched, rows),
        )


def _only(tokens: IntArray | None, rows: Rows) -> IntArray | None:
    return None if tokens is None else tokens[rows]
