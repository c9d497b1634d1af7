"""Why a prompt could hit: what its session had before, and whether it was sent before."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from loadkit.analysis.events import Events
from loadkit.core.jit import compiled
from loadkit.core.trace import BoolArray, IntArray, Trace

REPLAY_NONE, REPLAY_SAME_SESSION, REPLAY_CROSS_SESSION = 0, 1, 2


def replay_kinds(prompt_key: IntArray, session: IntArray) -> npt.NDArray[np.int8]:
    """REPLAY_* (n,): was this whole prompt sent before, by this session or only by others?"""
    rows = np.arange(len(prompt_key))
    kinds = np.zeros(len(prompt_key), np.int8)
    kinds[_first_row(prompt_key[:, None]) < rows] = REPLAY_CROSS_SESSION
    kinds[_first_row(np.stack([prompt_key, session], axis=1)) < rows] = REPLAY_SAME_SESSION
    return kinds


def own_prefix_blocks(trace: Trace, events: Events) -> IntArray:
    """Leading prompt blocks (n,) that the request's session had before, in prompts or replies.

    The blocks that a session has had are closed under "parent of" (a chained hash seen means its
    ancestors were seen), so they are a prefix of every chain and one number tells them all.
    """
    session = trace.session[events.request]
    return _own_prefix(
        trace.block_ptr,
        trace.block_ids,
        events.resident_ptr,
        events.resident_ids,
        events.request,
        events.completes,
        trace.session,
        np.argsort(session, kind="stable"),
        np.full(trace.num_ids, -1, np.int32),
    )


def _first_row(keys: IntArray) -> IntArray:
    """Index (n,) of the first row equal to each row of keys (n, k)."""
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return first[group.reshape(-1)]


@compiled
def _own_prefix(
    ptr: IntArray,
    ids: IntArray,
    resident_ptr: IntArray,
    resident_ids: IntArray,
    event_request: IntArray,
    event_completes: BoolArray,
    session: IntArray,
    order: IntArray,
    last_session: npt.NDArray[np.int32],
) -> IntArray:
    """`order` goes session by session, so a block's last session tells whether this one had it."""
    own = np.zeros(len(ptr) - 1, np.int64)
    for event in order:
        request = event_request[event]
        if event_completes[event]:
            chain = resident_ids[resident_ptr[request] : resident_ptr[request + 1]]
        else:
            chain = ids[ptr[request] : ptr[request + 1]]
        k = len(chain)
        while k > 0 and last_session[chain[k - 1]] != session[request]:
            last_session[chain[k - 1]] = session[request]
            k -= 1
        if not event_completes[event]:
            own[request] = k
    return own
