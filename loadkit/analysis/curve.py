"""Hit rate over capacity, split by cause, for every LRU capacity from one pass."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from loadkit.analysis.events import prompts_alone
from loadkit.analysis.reuse import Reuse
from loadkit.analysis.stack import stack_positions
from loadkit.core.jit import compiled
from loadkit.core.split import Split
from loadkit.core.trace import IntArray

KindArray = npt.NDArray[np.int8]
DEFAULT_POINTS = 24
POINT_CAUSES = (
    "replay_same_session",
    "replay_cross_session",
    "continuation",
    "shared",
    "miss_compulsory",
    "miss_capacity",
)
# The default curve starts where a thousandth of the distinct blocks fits.
_SMALLEST_SHARE = 1000


class CurvePoint(msgspec.Struct, frozen=True):
    """Rates of an LRU cache of one size, token-weighted, of all prompt tokens; None without any.

    capacity None is infinite. block_hit_rate counts prompt blocks as given in a plain LRU, without
    engine rule, replies and unfinished pages.
    """

    capacity_blocks: int | None
    capacity_tokens: int | None
    hit_rate: float | None
    replay_same_session: float | None
    replay_cross_session: float | None
    continuation: float | None
    shared: float | None
    miss_compulsory: float | None
    miss_capacity: float | None
    block_hit_rate: float | None


@dataclass(frozen=True, slots=True)
class HitCurve:
    """Hits at every capacity; build it with `hit_curve`. Index c counts positions <= c."""

    block_size: int
    prompt_tokens: int
    by_cause: IntArray  # (4, largest position + 1) tokens: see _histogram for the causes
    as_given: IntArray  # (largest position + 1,) prompt blocks, of prompts alone
    num_blocks: int

    def split(self, capacity_blocks: int | None) -> Split:
        """Prompt tokens of the whole log by cause at a capacity (None: infinite)."""
        at, ever = self._at(self.by_cause, capacity_blocks), self._at(self.by_cause, None)
        new_own, new_shared, same, cross = (int(tokens) for tokens in at)
        evicted = int(ever.sum() - at.sum())
        return Split(self.prompt_tokens, same, cross, new_own, new_shared, evicted)

    def block_hit_rate(self, capacity_blocks: int | None) -> float | None:
        """Hit blocks / blocks as given, in a plain LRU of that size; None without blocks."""
        if not self.num_blocks:
            return None
        return int(self._at(self.as_given, capacity_blocks)) / self.num_blocks

    def point(self, capacity_blocks: int | None) -> CurvePoint:
        """All rates at one capacity."""
        return CurvePoint(
            capacity_blocks=capacity_blocks,
            capacity_tokens=None if capacity_blocks is None else capacity_blocks * self.block_size,
            block_hit_rate=self.block_hit_rate(capacity_blocks),
            **rates_of_point(self.split(capacity_blocks)),
        )

    def default_capacities(self, points: int = DEFAULT_POINTS) -> list[int | None]:
        """Log-spaced sizes up to all distinct blocks, or on to where more room gains nothing."""
        first_touches = self.num_blocks - int(self.as_given[-1])
        top = max(first_touches, self.by_cause.shape[1] - 1)
        if top == 0:
            return []
        return log_spaced(top, points)

    @staticmethod
    def _at(counts: IntArray, capacity_blocks: int | None) -> IntArray:
        largest = counts.shape[-1] - 1
        index = largest if capacity_blocks is None else min(capacity_blocks, largest)
        found: IntArray = counts[..., index]
        return found


def rates_of_point(split: Split) -> dict[str, float | None]:
    """The token-weighted rates of a point of a curve, by its fields' names."""
    return {"hit_rate": split.rate("hit")} | {cause: split.rate(cause) for cause in POINT_CAUSES}


def log_spaced(top: float, points: int = DEFAULT_POINTS) -> list[int | None]:
    """Whole sizes from a thousandth of `top` up to it, evenly apart on a logarithmic scale."""
    grid = np.geomspace(max(1, top / _SMALLEST_SHARE), top, points)
    return [int(size) for size in np.unique(np.round(grid).astype(np.int64))]


def hit_curve(reuse: Reuse) -> HitCurve:
    """Count the pass once for all capacities."""
    trace = reuse.trace
    given = reuse.position
    if trace.resident_ids is not None or trace.partial_page is not None:
        given = stack_positions(trace, prompts_alone(trace))
    counts = _histogram(
        trace.block_ptr,
        reuse.position,
        reuse.max_hit_blocks,
        reuse.own_blocks,
        reuse.replay,
        trace.prompt_tokens,
        trace.block_size,
        int(reuse.position.max(initial=0)),
    )
    seen = np.bincount(given, minlength=1)
    seen[0] = 0  # never seen before
    return HitCurve(
        block_size=trace.block_size,
        prompt_tokens=int(trace.prompt_tokens.sum()),
        by_cause=np.cumsum(counts, axis=1, out=counts),
        as_given=np.cumsum(seen, out=seen),
        num_blocks=trace.num_blocks,
    )


@compiled
def _histogram(
    ptr: IntArray,
    position: IntArray,
    max_hit_blocks: IntArray,
    own_blocks: IntArray,
    replay: KindArray,
    prompt_tokens: IntArray,
    block_size: int,
    largest: int,
) -> IntArray:
    """Tokens of blocks that may hit, by cause and position.

    Causes: 0 continuation and 1 shared of new prompts, 2 and 3 replays (1 + REPLAY_*). A partial
    last block, which hits under the rule `none` only, has the tokens that the prompt has left.
    """
    counts = np.zeros((4, largest + 1), np.int64)
    for request in range(len(ptr) - 1):
        start = ptr[request]
        for depth in range(max_hit_blocks[request]):
            found = position[start + depth]
            if found == 0:
                break
            cause = 1 + replay[request]
            if replay[request] == 0 and depth < own_blocks[request]:
                cause = 0
            counts[cause, found] += min(block_size, prompt_tokens[request] - depth * block_size)
    return counts
