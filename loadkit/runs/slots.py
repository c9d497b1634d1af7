"""llama.cpp's slots as a run predicts them: how many there are is told, what else it keeps is not.

No endpoint says whether the server has a prompt cache in host memory, nor whether its slots share one
buffer. So all three setups are simulated, and the one whose hits are nearest to the answers', request
by request, is taken for the server's (of equals the plainest): one choice for the whole run, which
its notes say.

Which slot took a request is not known where requests overlap: it depends on which were idle when the
server looked. The client sees a request's sending, first token and end; when it reached the server,
and how much before its end its slot was free, is drawn. The least and the most hit tokens of all
draws are the interval that a prediction states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from loadkit.analysis.reuse import Reuse
from loadkit.analysis.simulate.host_cache import HostCache
from loadkit.analysis.simulate.slots import simulate_slots
from loadkit.core.trace import FloatArray, IntArray, Trace
from loadkit.runs.record import Record
from loadkit.runs.splits import has_usable_usage

# Tokens of one step arrive within a millisecond or two of each other; steps take longer.
ONE_STEP_S = 0.004
ALONE = "no prompt cache in host memory"
HOST = "a prompt cache in host memory"
HOST_AND_ONE_BUFFER = "a prompt cache in host memory and one buffer for all slots"


def predict_slots(
    reuse: Reuse, num_slots: int, answered: Sequence[Record], draws: int = 0
) -> tuple[str, IntArray, IntArray]:
    """The setup that the answers show (of equals the plainest), its hit tokens (n,), and those of other
    orders that the client cannot tell from the likeliest, (draws, n); none where nothing overlaps."""
    order = order_of_service(answered)
    found = {
        setup: _hits(reuse, num_slots, setup, order) for setup in (ALONE, HOST, HOST_AND_ONE_BUFFER)
    }
    usable = np.array([has_usable_usage(record) for record in answered], np.bool_)
    cached = np.array([record.cached_tokens or 0 for record in answered], np.int64)
    errors = {setup: int(np.abs(hits - cached)[usable].sum()) for setup, hits in found.items()}
    nearest = min(errors, key=lambda setup: errors[setup])
    rng = np.random.default_rng(0)
    shares = [(number + 1) / draws for number in range(draws)] if overlap(reuse.trace) else []
    drawn = []
    for share in shares:
        other, other_order = _drawn(reuse, num_slots, answered, share, rng)
        drawn.append(_hits(other, num_slots, nearest, other_order))
    return nearest, found[nearest], np.array(drawn, np.int64).reshape(-1, len(answered))


def _hits(reuse: Reuse, num_slots: int, setup: str, order: IntArray) -> IntArray:
    host = None if setup == ALONE else HostCache(empties_idle=setup == HOST_AND_ONE_BUFFER)
    served = simulate_slots(reuse, num_slots, host=host, order=order)
    return served.requests.resident_tokens


def _drawn(
    reuse: Reuse,
    num_slots: int,
    answered: Sequence[Record],
    share: float,
    rng: np.random.Generator,
) -> tuple[Reuse, IntArray]:
    """Other times that are possible: a request reached the server up to its first token, and its slot
    was free from its last token on; `share` of that freedom. With one slot first tokens keep their
    order, requests of one step come in any; with several a long prompt may have begun earlier."""
    began = np.array([_began_s(record) for record in answered])
    sent = np.array([_sent_s(record) for record in answered])
    ended = np.array([_began_s(r) if r.completed_s is None else r.completed_s for r in answered])
    last = np.array(
        [
            end if r.last_token_s is None else r.last_token_s
            for r, end in zip(answered, ended, strict=True)
        ]
    )
    if num_slots > 1:
        began = began - share * rng.uniform(size=len(sent)) * np.maximum(began - sent, 0)
    reached = sent + share * rng.uniform(size=len(sent)) * np.maximum(began - sent, 0)
    freed = ended - share * rng.uniform(size=len(sent)) * np.maximum(ended - last, 0)
    trace = replace(reuse.trace, arrival_s=reached, completed_s=np.maximum(freed, reached))
    return replace(reuse, trace=trace), np.lexsort((reached, _steps(began)))


def order_of_service(answered: Sequence[Record]) -> IntArray:
    """Rows in the order in which the server began them, as far as first tokens show it: of requests
    that wait for a slot the one that begins first has its first token first. First tokens of one
    decoding step say nothing among each other; those requests began as they were sent."""
    began = np.array([_began_s(record) for record in answered])
    sent = np.array([_sent_s(record) for record in answered])
    order: IntArray = np.lexsort((sent, _steps(began)))
    return order


def _steps(began_s: FloatArray) -> IntArray:
    """(n,) the number of the decoding step that each first token came with."""
    rows = np.argsort(began_s, kind="stable")
    steps = np.empty(len(rows), np.int64)
    steps[rows] = np.cumsum(np.diff(began_s[rows], prepend=began_s[rows][:1]) > ONE_STEP_S)
    return steps


def _sent_s(record: Record) -> float:
    return record.intended_s if record.sent_s is None else record.sent_s


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
