"""What a policy is, and what it may look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Scored(Protocol):
    """A block as policies see it. Counts start anew when a block was evicted.

    last: tick of the last touch, unique and increasing. depth: blocks before it in its chain.
    num_uses: requests that used it. num_prompts: those of them whose prompt was new.
    """

    last: int
    depth: int
    num_uses: int
    num_prompts: int


class Policy:
    """`score(node, clock)`: lowest goes first, equal ones by their last touch.

    The score is taken when a request touches the block, and holds until the next touch. `clock` is
    the highest score of a victim so far where the policy `ages`, else 0; an unfinished page, which
    no policy values, is scored with the clock alone. The definitions are those of
    `loadkit analyze --policy`, so that both count the same hits.
    """

    name = ""
    ages = False

    def __init__(self, num_blocks: int = 1, block_size: int = 1):
        self.num_blocks, self.block_size = num_blocks, block_size

    def score(self, node: Scored, clock: float) -> float:
        raise NotImplementedError

    def arrived(self, *, is_replay: bool) -> None:
        """A request was admitted for the first time."""

    def used(self, node: Scored) -> None:
        """A request uses a resident block that an earlier one had put there."""

    def touched(self, node: Scored) -> None:
        """The block was touched; its `last` is new."""

    def fallen(self) -> Sequence[Scored]:
        """Blocks that lose their rank now that a request's touches are done, in order."""
        return ()

    def evicted(self, node: Scored) -> None:
        """The block left the device."""
