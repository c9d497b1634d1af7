"""Hit rate over capacity, split by cause, for every LRU capacity from one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from loadkit.analysis.nodes import NodeStream, node_stream
from loadkit.analysis.reuse import Reuse
from loadkit.analysis.stack import Positions, stack_positions
from loadkit.analysis.weighted import WeightedHits, weighted_hits
from loadkit.core.split import Split, check_shares

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

    def __post_init__(self) -> None:
        shares = msgspec.structs.asdict(self)
        del shares["capacity_blocks"], shares["capacity_tokens"]
        check_shares("a point of the curve", shares)


@dataclass(frozen=True, slots=True)
class HitCurve:
    """Hits at every capacity; build it with `hit_curve`.

    as_given counts blocks instead of tokens: the prompts alone, as if each block were one token, no
    engine had a rule, and replies and unfinished pages did not exist.
    """

    log: Counted
    as_given: Counted

    def split(self, capacity_blocks: int | None) -> Split:
        """Prompt tokens of the whole log by cause at a capacity (None: infinite)."""
        return self.log.hits([capacity_blocks]).split(0)

    def block_hit_rate(self, capacity_blocks: int | None) -> float | None:
        """Hit blocks / blocks as given, in a plain LRU of that size; None without blocks."""
        return self.as_given.hits([capacity_blocks]).split(0).rate("hit")

    def points(self, capacities_blocks: Sequence[int | None]) -> list[CurvePoint]:
        """All rates at these capacities."""
        size = self.log.stream.block_size
        tokens, blocks = self.log.hits(capacities_blocks), self.as_given.hits(capacities_blocks)
        return [
            CurvePoint(
                capacity_blocks=capacity,
                capacity_tokens=None if capacity is None else capacity * size,
                block_hit_rate=blocks.split(index).rate("hit"),
                **rates_of_point(tokens.split(index)),
            )
            for index, capacity in enumerate(capacities_blocks)
        ]

    def default_capacities(self, points: int = DEFAULT_POINTS) -> list[int | None]:
        """Log-spaced sizes up to all distinct blocks, or on to where more room gains nothing."""
        given = self.as_given.hits([None]).split(0)
        top = max(given.miss, self.log.largest_position())
        return log_spaced(top, points) if top else []


@dataclass(frozen=True, slots=True)
class Counted:
    """A stream and the pass over it, counted as often as asked."""

    stream: NodeStream
    positions: Positions

    def hits(self, capacities_blocks: Sequence[int | None]) -> WeightedHits:
        return weighted_hits(self.stream, capacities_blocks, positions=self.positions)

    def largest_position(self) -> int:
        """Of a block that was seen before; 0 if none was."""
        newer, weight = self.positions.newer, self.stream.weight[self.stream.nodes]
        seen = newer >= 0
        return int((newer[seen] + weight[seen]).max(initial=0))


def rates_of_point(split: Split) -> dict[str, float | None]:
    """The token-weighted rates of a point of a curve, by its fields' names."""
    return {"hit_rate": split.rate("hit")} | {cause: split.rate(cause) for cause in POINT_CAUSES}


def log_spaced(top: float, points: int = DEFAULT_POINTS) -> list[int | None]:
    """Whole sizes from a thousandth of `top` up to it, evenly apart on a logarithmic scale."""
    grid = np.geomspace(max(1, top / _SMALLEST_SHARE), top, points)
    return [int(size) for size in np.unique(np.round(grid).astype(np.int64))]


def hit_curve(reuse: Reuse) -> HitCurve:
    """The curve of a pass already made; a log with replies takes another one over its prompts."""
    trace, stream, positions = reuse.trace, reuse.stream, reuse.positions
    if trace.resident_ids is not None or trace.partial_page is not None:
        stream = node_stream(trace, "none")
        positions = stack_positions(stream)
    given = np.diff(trace.block_ptr)
    asked = replace(
        stream.requests, prompt_tokens=given, max_hit_blocks=given, max_hit_tokens=given
    )
    as_given = Counted(replace(stream, block_size=1, requests=asked), positions)
    return HitCurve(Counted(reuse.stream, reuse.positions), as_given)
