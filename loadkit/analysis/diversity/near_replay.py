"""Near replays: prompts that differ from earlier ones by their last words only."""

from __future__ import annotations

import msgspec
import numpy as np

from loadkit.analysis.causes import REPLAY_NONE
from loadkit.analysis.reuse import Reuse
from loadkit.core.trace import BoolArray, IntArray

BINS = 10
_ALMOST_ALL = 9


class NearReplay(msgspec.Struct, frozen=True):
    """Requests by the share of their tokens that may hit and do, in an infinite cache.

    all_requests, opening_requests: (10,) counts for shares 0-10% to 90-100%. An opening request is
    the first of its session, so that what it hits is not its own history. near_replays are opening
    requests of 90% and more whose prompt is new: the same prompt with its last words changed.
    too_short: requests of less than one block, in no bin.
    """

    all_requests: tuple[int, ...]
    opening_requests: tuple[int, ...]
    near_replays: int
    too_short: int


def near_replay(reuse: Reuse) -> NearReplay:
    """Histogram of matched shares."""
    may_hit, hits = reuse.max_hit_blocks, reuse.hit_blocks(None)
    some = may_hit > 0
    bins = np.minimum(BINS * hits[some] // may_hit[some], BINS - 1)
    opening = _first_of_session(reuse.trace.session)[some]
    new = reuse.replay[some] == REPLAY_NONE
    return NearReplay(
        all_requests=_counts(bins),
        opening_requests=_counts(bins[opening]),
        near_replays=int(np.sum(opening & new & (bins == _ALMOST_ALL))),
        too_short=int(np.sum(~some)),
    )


def _first_of_session(session: IntArray) -> BoolArray:
    first = np.zeros(len(session), np.bool_)
    first[np.unique(session, return_index=True)[1]] = True
    return first


def _counts(bins: IntArray) -> tuple[int, ...]:
    counts: list[int] = np.bincount(bins, minlength=BINS).tolist()
    return tuple(counts)
