"""Append-only audit: does each turn of a session keep the prompt before it?"""

from __future__ import annotations

import msgspec
import numpy as np

from loadkit.core.trace import IntArray, Trace


class AppendOnly(msgspec.Struct, frozen=True):
    """Consecutive requests of one session, compared in full blocks of their prompts.

    kept: the later prompt starts with every full block of the earlier one. truncated: it is shorter
    and goes no other way. rewritten: some block before the earlier one's end differs. Changes inside
    the partial last block do not show.
    """

    turn_pairs: int
    kept: int
    rewritten: int
    truncated: int


def append_only(trace: Trace) -> AppendOnly:
    """Count the turn pairs of all sessions by what became of the earlier prompt."""
    order = np.lexsort((np.arange(trace.num_requests), trace.session))
    pair = np.flatnonzero(np.diff(trace.session[order]) == 0)
    before, after = order[pair], order[pair + 1]
    full = np.minimum(np.diff(trace.block_ptr), trace.prompt_tokens // trace.block_size)
    common = np.minimum(full[before], full[after])
    same = _block_at(trace, before, common) == _block_at(trace, after, common)
    kept = int(np.sum(same & (full[after] >= full[before])))
    truncated = int(np.sum(same & (full[after] < full[before])))
    return AppendOnly(len(pair), kept, len(pair) - kept - truncated, truncated)


def _block_at(trace: Trace, rows: IntArray, depth: IntArray) -> IntArray:
    """Id of the depth-th block of each row, -1 at depth 0: ids are chained, so it tells them all."""
    out = np.full(len(rows), -1, np.int64)
    some = depth > 0
    out[some] = trace.block_ids[trace.block_ptr[rows[some]] + depth[some] - 1]
    return out
