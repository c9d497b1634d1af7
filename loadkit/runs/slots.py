"""llama.cpp's slots as a run predicts them: how many there are is told, what else it keeps is not.

No endpoint says whether the server has a prompt cache in host memory, nor whether its slots share one
buffer. So all three setups are simulated, and the one whose hits are nearest to the answers', request
by request, is taken for the server's (of equals the plainest): one choice for the whole run, which
its notes say.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loadkit.analysis.reuse import Reuse
from loadkit.analysis.simulate.host_cache import HostCache
from loadkit.analysis.simulate.slots import simulate_slots
from loadkit.core.trace import IntArray, Trace
from loadkit.runs.record import Record
from loadkit.runs.splits import has_usable_usage

# Tokens of one step arrive within a millisecond or two of each other; steps take longer.
ONE_STEP_S = 0.004
ALONE = "no prompt cache in host memory"
HOST = "a prompt cache in host memory"
HOST_AND_ONE_BUFFER = "a prompt cache in host memory and one buffer for all slots"


def predict_slots(reuse: Reuse, num_slots: int, answered: Sequence[Record]) -> tuple[str, IntArray]:
    """The setup that the answers show, and its hit tokens (n,). Of equals the plainest."""
    order = order_of_service(answered)
    hosts = {ALONE: None, HOST: HostCache(), HOST_AND_ONE_BUFFER: HostCache(empties_idle=True)}
    found = {
        setup: simulate_slots(reuse, num_slots, host=host, order=order).requests.resident_tokens
        for setup, host in hosts.items()
    }
    usable = np.array([has_usable_usage(record) for record in answered], np.bool_)
    cached = np.array([record.cached_tokens or 0 for record in answered], np.int64)
    errors = {setup: int(np.abs(hits - cached)[usable].sum()) for setup, hits in found.items()}
    nearest = min(errors, key=lambda setup: errors[setup])
    return nearest, found[nearest]


def order_of_service(answered: Sequence[Record]) -> IntArray:
    """Rows in the order in which the server began them, as far as first tokens show it: of requests
    that wait for a slot the one that begins first has its first token first. First tokens of one
    decoding step say nothing among each other; those requests began as they were sent."""
    began = np.array([_began_s(record) for record in answered])
    rows = np.argsort(began, kind="stable")
    steps = np.empty(len(rows), np.int64)
    steps[rows] = np.cumsum(np.diff(began[rows], prepend=began[rows][:1]) > ONE_STEP_S)
    sent = np.array([r.intended_s if r.sent_s is None else r.sent_s for r in answered])
    order: IntArray = np.lexsort((sent, steps))
    return order


def _began_s(record: Record) -> float:
    for seen in (record.first_token_s, record.completed_s, record.sent_s):
        if seen is not None:
            return seen
    return record.intended_s


def overlap(trace: Trace) -> bool:
    """Whether a request was sent before an earlier one was answered: then the order in which the
    server took them, and which slots were idle, is known no better than the client saw it."""
    if trace.arrival_s is None or trace.completed_s is None or trace.num_requests < 2:
        return False
    done = np.maximum.accumulate(trace.completed_s)
    return bool((trace.arrival_s[1:] < done[:-1]).any())
