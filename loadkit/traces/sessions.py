"""Who belongs to which session: ids from the log, or containment where the log has none."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from loadkit.core.jit import compiled
from loadkit.core.trace import UNKNOWN, BoolArray, IntArray
from loadkit.traces.interning import dense_by_appearance

SmallCounts = npt.NDArray[np.uint8]

# A prompt's tail with this many distinct next blocks is shared by many sessions (a system prompt
# that someone once sent alone) and says nothing about who continues whom.
TRUNK_CHILDREN = 5

INFERRED = (
    "sessions are inferred: a request joins the session whose earlier prompt it contains; "
    "identical prompts join too, so replay across sessions shows as replay within one"
)


def resolve_sessions(
    codes: IntArray, ptr: IntArray, ids: IntArray, full_blocks: IntArray
) -> tuple[IntArray, bool, list[str]]:
    """Dense session ids from the rows' own, or by containment when no row has one; True: inferred.

    codes (n,) are equal where session names are equal and UNKNOWN where a row has none. The list
    holds warnings.
    """
    if np.all(codes == UNKNOWN):
        return infer_sessions(ptr, ids, full_blocks), True, [INFERRED]
    session, warnings = dense_sessions(codes)
    return session, False, warnings


def dense_sessions(codes: IntArray) -> tuple[IntArray, list[str]]:
    """Dense ids in order of first appearance and warnings. A row without a name is its own session."""
    missing = codes == UNKNOWN
    own = codes.copy()
    own[missing] = codes.max(initial=-1) + 1 + np.arange(missing.sum())
    warning = f"{missing.sum()} rows have no session id: each counts as its own session"
    return dense_by_appearance(own), [warning] if missing.any() else []


def infer_sessions(block_ptr: IntArray, block_ids: IntArray, full_blocks: IntArray) -> IntArray:
    """Dense session ids (n,) by containment, for requests in order of arrival.

    A request joins the session of the deepest block of its chain that ends an earlier prompt; that
    end is the last full block, since a partial one changes when the prompt goes on. Forks and
    identical prompts join. A tail with TRUNK_CHILDREN distinct children never links. Prompts
    without a full block stay alone.
    """
    num_ids = int(block_ids.max(initial=-1)) + 1
    trunk = num_children(block_ptr, block_ids, num_ids) >= TRUNK_CHILDREN
    return _link(block_ptr, block_ids, full_blocks, trunk, np.full(num_ids, -1, np.int32))


@compiled
def num_children(block_ptr: IntArray, block_ids: IntArray, num_ids: int) -> SmallCounts:
    """Distinct next blocks of every id, at most TRUNK_CHILDREN of them counted.

    Ids have one parent, so a child is counted where it is seen first.
    """
    children, seen = np.zeros(num_ids, np.uint8), np.zeros(num_ids, np.bool_)
    for request in range(len(block_ptr) - 1):
        for touch in range(block_ptr[request] + 1, block_ptr[request + 1]):
            block, parent = block_ids[touch], block_ids[touch - 1]
            if not seen[block] and children[parent] < TRUNK_CHILDREN:
                children[parent] += 1
            seen[block] = True
    return children


@compiled
def _link(
    block_ptr: IntArray,
    block_ids: IntArray,
    full_blocks: IntArray,
    trunk: BoolArray,
    tail_session: npt.NDArray[np.int32],
) -> IntArray:
    num_requests = len(block_ptr) - 1
    session = np.empty(num_requests, np.int64)
    num_sessions = 0
    for request in range(num_requests):
        start = block_ptr[request]
        end = start + full_blocks[request]
        found = -1
        touch = end - 1
        while found < 0 and touch >= start:
            found = tail_session[block_ids[touch]]
            touch -= 1
        if found < 0:
            found = num_sessions
            num_sessions += 1
        session[request] = found
        if end > start and not trunk[block_ids[end - 1]]:
            tail_session[block_ids[end - 1]] = found
    return session
