"""Per request: what could hit and why, at one capacity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loadkit.analysis.causes import REPLAY_CROSS_SESSION, REPLAY_NONE, REPLAY_SAME_SESSION
from loadkit.analysis.reuse import Reuse, reuse_of
from loadkit.core.split import Split
from loadkit.core.trace import BoolArray, IntArray, Trace


@dataclass(frozen=True, slots=True)
class PerRequest:
    """Per request, in the trace's order: what could hit and why. All arrays are (n,), in tokens.

    Never None: what a log does not say (replies, sessions) is the trace's matter, see its warnings.
    """

    prompt_tokens: IntArray
    replay: npt.NDArray[np.int8]  # REPLAY_*: 0 new prompt, 1 this session's, 2 only others'
    own_prefix_tokens: IntArray  # leading full blocks that the session itself had before
    reusable_tokens: IntArray  # hit in an infinite cache
    resident_tokens: IntArray  # hit at the asked capacity
    miss_capacity_tokens: IntArray  # seen before and evicted: reusable - resident

    def split(self, row: int) -> Split:
        """The split of one request's prompt tokens at the asked capacity."""
        hit, miss = int(self.resident_tokens[row]), int(self.miss_capacity_tokens[row])
        prompt, kind = int(self.prompt_tokens[row]), int(self.replay[row])
        if kind == REPLAY_SAME_SESSION:
            return Split(prompt, replay_same_session=hit, miss_capacity=miss)
        if kind == REPLAY_CROSS_SESSION:
            return Split(prompt, replay_cross_session=hit, miss_capacity=miss)
        own = min(hit, int(self.own_prefix_tokens[row]))
        return Split(prompt, continuation=own, shared=hit - own, miss_capacity=miss)

    def total(self) -> Split:
        """The split of all requests together."""
        own = np.minimum(self.resident_tokens, self.own_prefix_tokens)
        new = self.replay == REPLAY_NONE
        return Split(
            prompt_tokens=int(self.prompt_tokens.sum()),
            replay_same_session=self._hit_where(self.replay == REPLAY_SAME_SESSION),
            replay_cross_session=self._hit_where(self.replay == REPLAY_CROSS_SESSION),
            continuation=int(own[new].sum()),
            shared=int((self.resident_tokens - own)[new].sum()),
            miss_capacity=int(self.miss_capacity_tokens.sum()),
        )

    def organic_hit_rate(self) -> float | None:
        """Genuine hit tokens / prompt tokens of requests that are no replay; None without any."""
        new = self.replay == REPLAY_NONE
        tokens = int(self.prompt_tokens[new].sum())
        return int(self.resident_tokens[new].sum()) / tokens if tokens else None

    def _hit_where(self, rows: BoolArray) -> int:
        return int(self.resident_tokens[rows].sum())


def per_request(trace: Trace, capacity_blocks: int | None) -> PerRequest:
    """Exact reuse per request at a capacity in blocks (None: infinite)."""
    return per_request_of(reuse_of(trace), capacity_blocks)


def per_request_of(reuse: Reuse, capacity_blocks: int | None) -> PerRequest:
    """The same from a pass already made; cheap for many capacities."""
    reusable = reuse.hit_blocks(None)
    resident = reusable if capacity_blocks is None else reuse.hit_blocks(capacity_blocks)
    return per_request_from(reuse, reusable, resident)


def per_request_from(
    reuse: Reuse, reusable_blocks: IntArray, resident_blocks: IntArray
) -> PerRequest:
    """Causes of hits counted elsewhere; both (n,) in leading blocks, an infinite cache's first."""
    trace = reuse.trace
    reusable, resident = reuse.tokens(reusable_blocks), reuse.tokens(resident_blocks)
    # Only the rule `none` lets a partial last block hit.
    full = np.maximum(trace.prompt_tokens // trace.block_size, reuse.max_hit_blocks)
    return PerRequest(
        prompt_tokens=trace.prompt_tokens,
        replay=reuse.replay,
        own_prefix_tokens=reuse.tokens(np.minimum(reuse.own_blocks, full)),
        reusable_tokens=reusable,
        resident_tokens=resident,
        miss_capacity_tokens=reusable - resident,
    )
