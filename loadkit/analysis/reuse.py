"""What one pass over a trace found: a log's weighted nodes with their stack positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loadkit.analysis.engines import as_cached, hit_tokens
from loadkit.analysis.nodes import NodeStream, stream_of
from loadkit.analysis.stack import Positions, stack_positions
from loadkit.analysis.weighted import leading_blocks
from loadkit.core.trace import IntArray, Trace


@dataclass(frozen=True, slots=True)
class Reuse:
    """What one pass over a trace found; every rate at every capacity is counted from it."""

    trace: Trace
    stream: NodeStream
    positions: Positions  # replies and unfinished pages take room in them

    @property
    def max_hit_blocks(self) -> IntArray:
        """(n,) the most blocks of the prompt that may hit, by engine rule."""
        return self.stream.requests.max_hit_blocks

    @property
    def own_blocks(self) -> IntArray:
        """(n,) leading blocks that the session itself had before."""
        return self.stream.requests.own_blocks

    @property
    def replay(self) -> npt.NDArray[np.int8]:
        """(n,) REPLAY_*, see `analysis.causes`."""
        return self.stream.requests.replay

    def seen_blocks(self, capacity_blocks: int | None = None) -> IntArray:
        """Leading blocks of each prompt (n,) in a cache of that size, whatever the rule lets hit."""
        return leading_blocks(self.stream, self.positions, capacity_blocks)

    def hit_blocks(self, capacity_blocks: int | None) -> IntArray:
        """Blocks hit per request (n,) in a cache of that size (None: infinite)."""
        return np.minimum(self.seen_blocks(capacity_blocks), self.max_hit_blocks)

    def tokens(self, blocks: IntArray) -> IntArray:
        """Tokens of leading blocks (n,), see `engines.hit_tokens`."""
        return hit_tokens(blocks, self.trace.prompt_tokens, self.trace.block_size)


def reuse_of(trace: Trace, engine: str = "vllm") -> Reuse:
    """Run the exact pass under an engine's rule (`analysis.engines`; InputError if unknown).

    The result's trace is the one given, as that engine keeps it in its cache.
    """
    trace = as_cached(trace, engine)
    stream = stream_of(trace, engine)
    return Reuse(trace, stream, stack_positions(stream))
