"""How much of a prompt its own session had before: the part that is continuation, not sharing.

The blocks a session has had are closed under "parent of" (a chained hash seen means its ancestors
were seen), so they form a prefix of every chain and one number a request tells them all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from loadkit.analysis.events import Events
from loadkit.core.jit import compiled
from loadkit.core.trace import BoolArray, IntArray, Trace


def own_prefix_blocks(trace: Trace, events: Events) -> IntArray:
    """Leading prompt blocks (n,) that the request's session had before, in prompts or replies."""
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
