"""What the analyzer expects the cache to do with what was sent, request by request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from loadkit.core.trace import IntArray


@dataclass(frozen=True, slots=True)
class Prediction:
    """Columns over the answered requests in order of sending; all arrays are (n,) token counts.

    replay: "same_session", "cross_session" or None. reusable_tokens: hit in an infinite cache that
    starts empty. resident_tokens: hit at the server's capacity (LRU); None: capacity not known.
    """

    prompt_tokens: IntArray
    replay: tuple[str | None, ...]
    own_prefix_tokens: IntArray
    reusable_tokens: IntArray
    resident_tokens: IntArray | None

    @property
    def expected_tokens(self) -> IntArray:
        """Hit tokens at the server's capacity where that is known, else in an infinite cache."""
        return self.reusable_tokens if self.resident_tokens is None else self.resident_tokens


@dataclass(frozen=True, slots=True)
class Predictions:
    """One prediction for the split, a second one to name what re-tokenising replies costs.

    best: replies as the generated token ids where the server gave them, else as text.
    from_text: every reply as re-tokenised text; None if no reply came with token ids.
    curve: hit rate by cause over capacity of what was sent, as in `loadkit analyze --json`.
    overlap_tokens: hit tokens at the capacity when running requests hold their blocks, as they do
    on a server; None if the capacity is not known. `best` serves one request after another, which
    is exact as long as nothing is evicted; the two differ only where something is.
    """

    best: Prediction
    from_text: Prediction | None
    curve: list[dict[str, Any]] = field(default_factory=list)
    overlap_tokens: int | None = None
