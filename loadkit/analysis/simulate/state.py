"""What the compiled simulation works on: a log, a rule, a cache. Nothing compiled stands here."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from loadkit.core.trace import FloatArray, IntArray

BoolArray = npt.NDArray[np.bool_]
KindArray = npt.NDArray[np.int8]


class Log(NamedTuple):
    """What is served; n requests, e events. See analysis.events for the columns of events."""

    ptr: IntArray  # (n + 1,) prompt chains
    ids: IntArray
    kept_ptr: IntArray  # (n + 1,) chains that completions leave
    kept_ids: IntArray
    partial_page: BoolArray  # (n,)
    event_request: IntArray  # (e,)
    event_completes: BoolArray  # (e,)
    event_time_s: FloatArray  # (e,) zeros where the log has no time
    event_diversity: FloatArray  # (e,) the diversity index when the event happens, 0..1
    replay: KindArray  # (n,) above 0: the whole prompt was sent before
    max_hit_blocks: IntArray  # (n,)
    block_cost: FloatArray  # (longest chain,) relative cost of computing the block at that depth


class Rule(NamedTuple):
    """How the cache behaves; ttl_s infinite for none."""

    policy: int
    capacity: int
    protected: int  # SLRU: most blocks of the protected segment
    ttl_s: float
    refresh: bool  # True: an entry's age counts from its last use, False: from its computation


# One record a block, ids of unfinished pages behind those of blocks.
BLOCK = np.dtype(
    [
        ("parent", np.int64),
        ("children", np.int64),  # resident ones
        ("uses", np.int64),
        ("last", np.int64),  # tick of the last touch
        ("place", np.int64),  # index in the heap, -1 outside
        ("score", np.float64),
        ("stamp_s", np.float64),  # age counts from here
        ("resident", np.bool_),
        ("pinned", np.bool_),  # the event being served uses the block
    ]
)
QUEUED = np.dtype([("block", np.int64), ("at", np.float64)])


class Cache(NamedTuple):
    """All state. Few arrays, since numba counts references to each at every call."""

    blocks: npt.NDArray[Any]  # BLOCK
    heap: IntArray  # idle leaves
    # QUEUED: touches in order, for SLRU's oldest protected block and expiry
    queue: npt.NDArray[Any]
    counters: IntArray  # the scalars
    clock: FloatArray  # (1,) score of the last victim, never falling
