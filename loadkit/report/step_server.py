"""A server that works in steps, as engines with continuous batching do, replayed in no time.

A step takes, in order of arrival, the uncached tokens of all waiting requests up to a budget, and
one token of every request that is being answered; it lasts a + b * (tokens in it). A request's
first token comes at the end of the step that took its last uncached one. So TTFT follows from what
is computed before and together with a request, and a lower hit rate also makes queues longer. On an
idle server it is a + b * uncached tokens.

The budget is the usual one of such engines; it matters only where more is waiting than fits.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np

from loadkit.core.jit import compiled
from loadkit.core.trace import FloatArray, IntArray

BUDGET_TOKENS = 2048


class Traffic(NamedTuple):
    """One run's requests in order of sending, each column of shape (requests,).

    sent_s: send times of a request that waits for none. uncached, output: tokens, 1 or more. after:
    the earlier request whose completion this one waited for, -1: none. think_s: from that completion
    to the send.
    """

    sent_s: FloatArray
    uncached: FloatArray
    output: FloatArray
    after: IntArray
    think_s: FloatArray


def replayed(traffic: Traffic, step_s: float, token_s: float, *, as_sent: bool) -> FloatArray:
    """TTFT in seconds of every request. as_sent: at the times at which it was sent; else each as
    long after its predecessor's completion here as it was there."""
    after = np.full_like(traffic.after, -1) if as_sent else traffic.after
    uncached = np.maximum(traffic.uncached, 1.0)
    sent, first = _serve(
        traffic.sent_s, uncached, traffic.output, after, traffic.think_s, step_s, token_s
    )
    return first - sent


@compiled
def _serve(
    sent_s: FloatArray,
    uncached: FloatArray,
    output: FloatArray,
    after: IntArray,
    think_s: FloatArray,
    step_s: float,
    token_s: float,
) -> tuple[FloatArray, FloatArray]:
    """Send and first-token times. Steps that only decode are taken together up to the next event."""
    count = len(sent_s)
    sent, first, left = sent_s.copy(), np.zeros(count), uncached.copy()
    follower, sibling = np.full(count, -1), np.full(count, -1)
    coming = [(0.0, 0)][:0]  # (send time, request)
    for n in range(count - 1, -1, -1):
        if after[n] < 0:
            coming.append((sent[n], n))
        else:
            sibling[n], follower[after[n]] = follower[after[n]], n
    heapq.heapify(coming)
    waiting, head = np.zeros(count, np.int64), 0
    tail, now, step = 0, 0.0, 0
    running = [(0, 0)][:0]  # (step that gives its last token, request)
    while coming or running or head < tail:
        if not running and head == tail:
            now = max(now, coming[0][0])
        while coming and coming[0][0] <= now:
            waiting[tail] = heapq.heappop(coming)[1]
            tail += 1
        steps, budget, start = 1, float(BUDGET_TOKENS), head
        while head < tail and budget > 0:
            taken = min(left[waiting[head]], budget)
            left[waiting[head]] -= taken
            budget -= taken
            if left[waiting[head]] > 0:
                break
            head += 1
        lasts = step_s + token_s * (BUDGET_TOKENS - budget + len(running))
        if budget == BUDGET_TOKENS:
            steps = running[0][0] - step
            if coming:
                steps = max(1, min(steps, int(np.ceil((coming[0][0] - now) / lasts))))
        now, step = now + steps * lasts, step + steps
        for place in range(start, head):
            request = waiting[place]
            first[request] = now
            heapq.heappush(running, (step + int(output[request]) - 1, request))
        while running and running[0][0] <= step:
            following = follower[heapq.heappop(running)[1]]
            while following >= 0:
                sent[following] = now + think_s[following]
                heapq.heappush(coming, (sent[following], following))
                following = sibling[following]
    return sent, first
