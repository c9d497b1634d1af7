"""One run's requests as the step server takes them, as sent and at another hit rate."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from loadkit.core.trace import FloatArray, IntArray
from loadkit.gate.requests import Requests
from loadkit.report.step_server import Traffic

MAX_REQUESTS = 5000


def answered(requests: Requests) -> IntArray:
    """Rows with a prompt, a TTFT and cached tokens in order of sending, the first 5,000 of them."""
    number = requests.number
    uncached = number["prompt_tokens"] - number["cached_tokens"]
    known = [np.isfinite(x) for x in (uncached, number["sent_s"], number["completed_s"])]
    some = [number[name] > 0 for name in ("prompt_tokens", "ttft_s")]
    rows = np.flatnonzero(np.all([requests.is_ok, *some, *known], axis=0))
    return rows[np.argsort(number["sent_s"][rows], kind="stable")][:MAX_REQUESTS]


def traffic_of(requests: Requests, rows: IntArray, *, closed: bool) -> Traffic:
    """closed: a user without a session starts the next one, so a session waits for another's end.
    A turn waits for the latest answer of its session in either loop."""
    number = {name: values[rows] for name, values in requests.number.items()}
    sent, completed = number["sent_s"], number["completed_s"]
    after = np.full(len(rows), -1)
    for request, before in _predecessors(sent, completed, requests.session[rows], closed):
        after[request] = before
    think = np.where(after >= 0, sent - completed[after], 0.0)
    return Traffic(
        sent_s=sent,
        uncached=np.maximum(number["prompt_tokens"] - number["cached_tokens"], 1.0),
        output=np.maximum(np.nan_to_num(number["output_tokens"], nan=1.0), 1.0),
        after=after,
        think_s=np.maximum(think, 0.0),
    )


def _predecessors(
    sent: FloatArray, completed: FloatArray, session: IntArray, closed: bool
) -> Iterator[tuple[int, int]]:
    """(request, the one it waited for). Users are alike: who is free first takes the next session."""
    latest: dict[int, int] = {}
    starts = []
    for n, which in enumerate(session.tolist()):
        before = latest.get(which)
        if before is None:
            starts.append(n)
        elif completed[before] <= sent[n]:
            yield n, before
        if before is None or completed[n] > completed[before]:
            latest[which] = n
    ends = sorted(latest.values(), key=lambda n: float(completed[n])) if closed else []
    free = 0
    for n in starts:
        if free < len(ends) and completed[ends[free]] <= sent[n]:
            yield n, ends[free]
            free += 1


def uncached_at(rate: float, prompt: FloatArray, uncached: FloatArray) -> FloatArray | None:
    """Uncached tokens of every request at another token-weighted hit rate: the odds of each one's
    uncached share times one common factor. So whoever hit more still does, and no share leaves
    0..1. None: not to be reached, since prompts that hit nothing still hit nothing."""
    share = np.clip(uncached / prompt, 0.0, 1.0)
    wanted = (1.0 - rate) * float(prompt.sum())
    low, high = -40.0, 40.0
    for _ in range(80):
        middle = (low + high) / 2
        enough = float((prompt * _scaled(share, middle)).sum()) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    found = prompt * _scaled(share, high)
    return found if abs(float(found.sum()) - wanted) <= 0.005 * float(prompt.sum()) else None


def _scaled(share: FloatArray, log_factor: float) -> FloatArray:
    factor = np.exp(log_factor)
    scaled: FloatArray = factor * share / (1.0 - share + factor * share)
    return scaled
