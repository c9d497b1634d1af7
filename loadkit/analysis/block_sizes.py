"""The same log in blocks of other sizes: what a model's large blocks cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np

from loadkit.analysis.engines import in_pages
from loadkit.analysis.per_request import per_request
from loadkit.core.trace import Trace

USUAL_SIZES = (16, 32, 128, 512, 2048)


class BlockRate(msgspec.Struct, frozen=True):
    """One block size. hit_rate: token-weighted, infinite cache, every block kept, None for a log
    without tokens. long_enough: prompts with a token more than a block, which alone can hit."""

    block_size: int
    hit_rate: float | None
    long_enough: int


def rates_at(trace: Trace, sizes: Sequence[int]) -> tuple[BlockRate, ...]:
    """vLLM's rates at the sizes that can be made of the trace's blocks, smallest first."""
    own = trace.block_size
    whole = sorted({size for size in sizes if size % own == 0})
    every = replace(trace, kept_blocks=())
    return tuple(_rate(every if size == own else in_pages(every, size)) for size in whole)


def long_enough(trace: Trace, tokens: int) -> int:
    """Prompts of at least so many tokens."""
    return int(np.count_nonzero(trace.prompt_tokens >= tokens))


def _rate(trace: Trace) -> BlockRate:
    size = trace.block_size
    return BlockRate(
        size, per_request(trace, None).total().rate("hit"), long_enough(trace, size + 1)
    )
