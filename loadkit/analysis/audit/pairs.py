"""Turn pairs of a log and what became of the earlier prompt, counted in full blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadkit.analysis.engines import hit_tokens
from loadkit.analysis.reuse import Reuse
from loadkit.core.jit import compiled
from loadkit.core.trace import BoolArray, IntArray, Trace

# A session with several threads (an agent and its helpers) takes turns between them: the request
# that is continued is looked for among this many earlier ones.
SEARCH_BACK = 8


@dataclass(frozen=True, slots=True)
class Pairs:
    """Each request that has an earlier one in its session; p = number of pairs. Rows of the trace.

    kept: the later prompt starts with every full block of the earlier one. truncated: it is shorter
    and goes no other way. The rest is rewritten. Changes inside a partial last block do not show.
    """

    before: IntArray  # (p,) the session's previous request
    after: IntArray  # (p,)
    kept: BoolArray  # (p,)
    truncated: BoolArray  # (p,)
    closest: IntArray  # (p,) which of the last SEARCH_BACK requests has most in common with after
    closest_common: IntArray  # (p,) blocks that it has in common
    order: IntArray  # (n,) rows by session and arrival
    place: IntArray  # (p,) of after in order
    turn: IntArray  # (p,) earlier requests of its session

    def recent(self, pair: int) -> list[int]:
        """Up to SEARCH_BACK earlier requests of the session, the latest first."""
        end, reach = int(self.place[pair]), min(int(self.turn[pair]), SEARCH_BACK)
        rows: list[int] = self.order[end - reach : end][::-1].tolist()
        return rows


def pairs_of(trace: Trace) -> Pairs:
    """All turn pairs, in order of session and arrival."""
    order = np.lexsort((np.arange(trace.num_requests), trace.session))
    first = np.flatnonzero(np.diff(trace.session[order], prepend=-1) != 0)
    position = np.arange(len(order))
    turn = position - np.repeat(first, np.diff(first, append=len(order)))
    later = np.flatnonzero(turn > 0)
    full = full_blocks(trace)
    before, after = order[later - 1], order[later]
    reach = np.minimum(turn[later], SEARCH_BACK)
    common, closest, closest_common = _search(
        trace.block_ptr, trace.block_ids, full, order, later, reach
    )
    kept = common == full[before]
    return Pairs(
        before=before,
        after=after,
        kept=kept,
        truncated=~kept & (common == full[after]),
        closest=closest,
        closest_common=closest_common,
        order=order,
        place=later,
        turn=turn[later],
    )


def full_blocks(trace: Trace) -> IntArray:
    """Full blocks (n,) of each prompt; an id of a partial last block is left out."""
    return np.minimum(np.diff(trace.block_ptr), trace.prompt_tokens // trace.block_size)


class Losses:
    """Prompt tokens that missed and would have hit, had the earlier prompt (and reply) been kept."""

    def __init__(self, reuse: Reuse, reusable_tokens: IntArray):
        """`reusable_tokens` (n,): what an infinite cache hits."""
        trace = self.trace = reuse.trace
        self._may_hit, self._reusable = reuse.max_hit_blocks, reusable_tokens
        self.prompt_blocks = self._resident = full_blocks(trace)
        if trace.resident_ptr is not None:
            self._resident = np.maximum(np.diff(trace.resident_ptr), self.prompt_blocks)

    def tokens(self, before: IntArray, after: IntArray, share: float = 1.0) -> IntArray:
        """Tokens lost (p,): the shorter of what `before` left and `after` may hit, less its hits.

        `share` of what `before` left is all that could have been kept.
        """
        left = np.floor(share * self._left_by(before, after)).astype(np.int64)
        may_hit = np.minimum(left, self._may_hit[after])
        prompts = self.trace.prompt_tokens[after]
        could: IntArray = hit_tokens(may_hit, prompts, self.trace.block_size)
        lost: IntArray = could - self._reusable[after]
        return np.maximum(lost, 0)

    def _left_by(self, before: IntArray, after: IntArray) -> IntArray:
        """Blocks in the cache; the reply's only if it was complete when `after` arrived."""
        arrival, completed = self.trace.arrival_s, self.trace.completed_s
        if arrival is None or completed is None:
            return self._resident[before]
        done = completed[before] <= arrival[after]
        return np.where(done, self._resident[before], self.prompt_blocks[before])


@compiled
def _search(
    ptr: IntArray,
    ids: IntArray,
    full: IntArray,
    order: IntArray,
    later: IntArray,
    reach: IntArray,
) -> tuple[IntArray, IntArray, IntArray]:
    """Blocks in common with the previous request; the row with most in common (ties: latest)."""
    common = np.zeros(len(later), np.int64)
    closest = np.zeros(len(later), np.int64)
    closest_common = np.zeros(len(later), np.int64)
    for pair in range(len(later)):
        row = order[later[pair]]
        most = -1
        for back in range(1, reach[pair] + 1):
            other = order[later[pair] - back]
            found = _common(ids, ptr[other], ptr[row], min(full[other], full[row]))
            if back == 1:
                common[pair] = found
            if found > most:
                most, closest[pair] = found, other
            if found == full[row]:
                break
        closest_common[pair] = most
    return common, closest, closest_common


@compiled
def _common(ids: IntArray, one: int, other: int, limit: int) -> int:
    """Equal leading blocks of two chains. Ids are chained: equal at a depth means equal up to it."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if ids[one + middle - 1] == ids[other + middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low
