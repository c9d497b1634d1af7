"""Can it be true what a server says of its cache? Each answer is judged by itself, counters over time.

An answer can have taken from the cache no more than the longest prefix of its prompt that any other
request of the run brought there, had that one been sent before this answer was complete. The bound
asks neither in which order the server computed what was under way together nor how large its cache
is, so an honest server that started empty never exceeds it.

A counter read between `asked_s` and `got_s` lies between what was answered before and what was sent
by then. That alone tells counters that stand still, that are of a part of the servers, that other
clients move as well and that were started again; nothing here knows of those four.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from loadkit.analysis.reuse import Reuse
from loadkit.client.prometheus import CounterSample, PrefixCounters
from loadkit.core.csr import pointers
from loadkit.core.trace import FloatArray, IntArray
from loadkit.runs.context import RunContext
from loadkit.runs.prediction import Prediction
from loadkit.runs.record import Record
from loadkit.runs.splits import has_usable_usage

MAX_SHOWN = 3
# A page in mid-run may be some seconds old: routers and exporters gather theirs at intervals.
MAX_AGE_S = 5.0
_MAYBE_COUNTED = ("cut", "timeout", "malformed", "cancelled")


class ImpossibleAnswer(msgspec.Struct, frozen=True):
    """One answer that cannot be true. possible_tokens None: not known, and not needed to say so."""

    session: str
    turn: int
    cached_tokens: int | None
    prompt_tokens: int | None
    possible_tokens: int | None
    why: str


class Impossible(msgspec.Struct, frozen=True):
    """Answers of the measured phase that cannot be true, by what is wrong with them.

    judged: answers that could be held against what was sent. beyond: those with at least a block more
    than could have been there, excess_tokens in all. off_grid: those with a part of a block, which an
    engine of whole blocks does not reuse. unreadable: those whose field is no number of tokens, or
    more than the prompt. first: the first of all three, in order of sending.
    """

    judged: int
    beyond: int
    excess_tokens: int
    off_grid: int
    unreadable: int
    first: tuple[ImpossibleAnswer, ...]

    @property
    def count(self) -> int:
        return self.beyond + self.off_grid + self.unreadable


class CounterDoubts(msgspec.Struct, frozen=True):
    """How far the server's counters leave the bounds that the run's own requests set; tokens.

    readings: that were compared, the last one after the run. restarted: a counter fell, or another
    process showed it. queries_short, queries_over: most by which looked-up tokens were below what had
    been answered or above what had been sent; hits_short, hits_over: the same of found tokens, in
    mid-run. at_s: when the worst was seen (seconds after the run's start; None: after it). None: no
    counters before or after, or (hits) no usage to compare with. silent: they did not move at all.
    """

    readings: int
    restarted: bool
    silent: bool
    prompt_tokens: int | None
    queries_short: int | None
    queries_over: int | None
    hits_short: int | None
    hits_over: int | None
    at_s: float | None


NOT_READ = CounterDoubts(0, False, False, None, None, None, None, None, None)


def may_have_been_counted(record: Record) -> bool:
    """Whether the server may have computed a request whose answer, or usage, we never saw."""
    if record.sent_s is None or record.outcome == "ok":
        return False
    failed_inside = record.outcome == "http_error" and (record.status or 0) >= 500
    return failed_inside or record.outcome in _MAYBE_COUNTED


def possible_tokens(reuse: Reuse, answered: Sequence[Record]) -> IntArray:
    """The most tokens (n,) that each request may have found in a cache that was empty at the start.

    `answered` runs parallel to the trace. A block counts if a request other than this one has it, in
    its prompt or its reply, that was sent before this one was complete. A request that was sent twice
    may have found its own first copy.
    """
    trace = reuse.trace
    rows = np.arange(trace.num_requests)
    request = np.repeat(rows, np.diff(trace.block_ptr))
    ids, by = trace.block_ids, request
    if trace.resident_ptr is not None and trace.resident_ids is not None:
        ids = np.concatenate([ids, trace.resident_ids])
        by = np.concatenate([by, np.repeat(rows, np.diff(trace.resident_ptr))])
    sent_s = np.array([record.sent_s or 0.0 for record in answered])
    until_s = np.array([_end(record) for record in answered])
    first, brought_by, second = _earliest_two(ids, by, sent_s, trace.num_ids)
    others_s = np.where(
        brought_by[trace.block_ids] == request, second[trace.block_ids], first[trace.block_ids]
    )
    possible = _leading(trace.block_ptr, others_s < until_s[request])
    twice = np.array([record.attempts > 1 or record.resent for record in answered], np.bool_)
    blocks = np.where(twice, reuse.max_hit_blocks, np.minimum(possible, reuse.max_hit_blocks))
    tokens: IntArray = np.minimum(blocks * trace.block_size, trace.prompt_tokens)
    return tokens


def _end(record: Record) -> float:
    return np.inf if record.completed_s is None else record.completed_s


def _earliest_two(
    ids: IntArray, by: IntArray, sent_s: FloatArray, num_ids: int
) -> tuple[FloatArray, IntArray, FloatArray]:
    """Of each block id (u,): when it was first sent, by whom, and when first by somebody else."""
    pairs = (
        np.unique(np.stack([ids, by], axis=1), axis=0) if len(ids) else np.zeros((0, 2), np.int64)
    )
    pairs = pairs[np.lexsort((sent_s[pairs[:, 1]], pairs[:, 0]))]
    ids, by = pairs[:, 0], pairs[:, 1]
    starts = np.flatnonzero(np.diff(ids, prepend=-1))
    first, second = np.full(num_ids, np.inf), np.full(num_ids, np.inf)
    brought_by = np.full(num_ids, -1)
    first[ids[starts]], brought_by[ids[starts]] = sent_s[by[starts]], by[starts]
    nexts = starts[starts + 1 < len(ids)] + 1
    nexts = nexts[ids[nexts] == ids[nexts - 1]]
    second[ids[nexts]] = sent_s[by[nexts]]
    return first, brought_by, second


def _leading(ptr: IntArray, holds: np.ndarray) -> IntArray:
    """How many touches of each row (n,) hold before the first that does not."""
    failed = pointers(~holds)
    rows = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    unbroken = failed[1:] == failed[ptr[:-1]][rows]
    kept = pointers(unbroken)
    found: IntArray = kept[ptr[1:]] - kept[ptr[:-1]]
    return found


def impossible_answers(
    answered: Sequence[Record], prediction: Prediction | None, block_size: int | None
) -> Impossible:
    """Judge every answer that says how much of its prompt was cached. `prediction` runs parallel.

    An answer whose prompt the server counts otherwise than the tokenizer is not judged by what was
    sent: its blocks are others. block_size: tokens a block where the engine reuses whole blocks, else
    1 or None.
    """
    found: list[ImpossibleAnswer] = []
    judged = beyond = excess = off_grid = unreadable = 0
    size = block_size or 1
    for row, record in enumerate(answered):
        cached, limit = record.cached_tokens, _limit(prediction, row, record)
        if record.usage_doubt is not None or (cached is not None and not has_usable_usage(record)):
            unreadable += 1
            why = record.usage_doubt or f"{cached} cached of {record.prompt_tokens} prompt tokens"
        elif cached is None:
            continue
        elif limit is not None and cached >= limit + size:
            judged, beyond, excess = judged + 1, beyond + 1, excess + cached - limit
            why = f"{cached:,} cached, at most {limit:,} could have been there"
        elif size > 1 and cached % size:
            judged, off_grid = judged + (limit is not None), off_grid + 1
            why = f"{cached:,} cached, which is no multiple of blocks of {size}"
        else:
            judged += limit is not None
            continue
        if len(found) < MAX_SHOWN:
            found.append(
                ImpossibleAnswer(
                    record.session, record.turn, cached, record.prompt_tokens, limit, why
                )
            )
    return Impossible(judged, beyond, excess, off_grid, unreadable, tuple(found))


def _limit(prediction: Prediction | None, row: int, record: Record) -> int | None:
    if prediction is None or record.prompt_tokens != prediction.prompt_tokens[row]:
        return None
    bound = prediction.possible_tokens
    return int((prediction.reusable_tokens if bound is None else bound)[row])


def judge_counters(
    records: Sequence[Record],
    prompt_tokens: Sequence[int | None],
    context: RunContext,
    predicted: Mapping[int, tuple[int, int]] | None = None,
) -> CounterDoubts:
    """Hold every reading of the server's counters against the requests of all phases.

    prompt_tokens runs parallel to `records`: usage's count, else the tokenizer's; None: not known.
    predicted: by row, the hit tokens that an answer without usage had at least and at most.
    A reading that is no finite number is none.
    """
    before, after = context.counters_before, context.counters_after
    if before is None or after is None:
        return NOT_READ
    readings = [*context.counter_samples, CounterSample(np.inf, np.inf, after)]
    if not all(map(_is_read, (before, after))):
        return NOT_READ
    readings = [reading for reading in readings if _is_read(reading.counters)]
    restarted = _restarted([before, *(reading.counters for reading in readings)])
    bounds = _Bounds(records, prompt_tokens, predicted or {})
    total = bounds.answered_tokens
    if restarted:
        return msgspec.structs.replace(
            NOT_READ, readings=len(readings), restarted=True, prompt_tokens=total
        )
    found = [_Off(bounds, before, reading) for reading in readings]
    hits = [off for off in found[:-1] if off.hits_short is not None]
    worst = max(
        found, key=lambda off: max(off.short, off.over, off.hits_short or 0, off.hits_over or 0)
    )
    return CounterDoubts(
        readings=len(readings),
        restarted=False,
        silent=after.queries == before.queries and total > 0,
        prompt_tokens=total,
        queries_short=max(off.short for off in found),
        queries_over=max(off.over for off in found),
        hits_short=max((off.hits_short or 0 for off in hits), default=None),
        hits_over=max((off.hits_over or 0 for off in hits), default=None),
        at_s=None if np.isinf(worst.at_s) else worst.at_s,
    )


def _is_read(counters: PrefixCounters) -> bool:
    return bool(np.isfinite(counters.queries) and np.isfinite(counters.hits))


def _restarted(readings: Sequence[PrefixCounters]) -> bool:
    """Whether two readings in a row cannot be of one process that only counts up."""
    return any(
        late.started_unix_s != early.started_unix_s
        or late.queries < early.queries
        or late.hits < early.hits
        for early, late in itertools.pairwise(readings)
    )


class _Bounds:
    """Tokens that were certainly and that were perhaps counted by a moment, by what was sent."""

    def __init__(
        self,
        records: Sequence[Record],
        prompt_tokens: Sequence[int | None],
        predicted: Mapping[int, tuple[int, int]],
    ) -> None:
        least, most, sent, done, hits_least, hits_most = [], [], [], [], [], []
        for row, (record, tokens) in enumerate(zip(records, prompt_tokens, strict=True)):
            answered = record.outcome == "ok"
            if record.sent_s is None or not (answered or may_have_been_counted(record)):
                continue
            # A token takes at least a byte of the prompt, and the JSON around it the template's.
            length = tokens if tokens is not None else len(record.prompt_key) or np.inf
            copies = record.attempts + record.resent
            usable = answered and has_usable_usage(record)
            hits = (record.cached_tokens or 0,) * 2 if usable else predicted.get(row)
            least.append(tokens if answered and tokens is not None else 0)
            most.append(copies * length)
            hits_least.append(0 if hits is None or not answered else hits[0])
            hits_most.append(copies * length if hits is None else hits[1] + (copies - 1) * length)
            sent.append(record.sent_s)
            done.append(np.inf if record.completed_s is None else record.completed_s)
        self.sent, self.done = np.array(sent), np.array(done)
        self.least, self.most = np.array(least), np.array(most)
        self.hits_least, self.hits_most = np.array(hits_least), np.array(hits_most)
        self.answered_tokens = int(self.least.sum())
        self.knows_hits = bool(predicted) or any(has_usable_usage(record) for record in records)


class _Off:
    """One reading beside its bounds; all in tokens, 0 where it is within them."""

    def __init__(self, bounds: _Bounds, before: PrefixCounters, reading: CounterSample) -> None:
        self.at_s = reading.asked_s
        done = bounds.done <= reading.asked_s - (0.0 if np.isinf(reading.asked_s) else MAX_AGE_S)
        done |= np.isinf(reading.asked_s)
        sent = bounds.sent <= reading.got_s
        seen = _growth(before, reading.counters)
        low, high = bounds.least[done].sum(), bounds.most[sent].sum()
        self.short = _whole(low - min(seen))
        self.over = _whole(min(seen) - high)
        self.hits_short: int | None = None
        self.hits_over: int | None = None
        repeated = reading.counters.queries - before.queries > high  # so may hits be
        if bounds.knows_hits and not repeated:
            hits = reading.counters.hits - before.hits
            self.hits_short = _whole(bounds.hits_least[done].sum() - hits)
            self.hits_over = _whole(hits - bounds.hits_most[sent].sum())


def _growth(before: PrefixCounters, after: PrefixCounters) -> list[float]:
    """Looked-up tokens; beside them those of requests counted once, where the server has both. The
    lesser of the two is judged: look-ups may be repeated for one request, requests are not."""
    grown = [after.queries - before.queries]
    if before.prompts is not None and after.prompts is not None:
        grown.append(after.prompts - before.prompts)
    return grown


def _whole(tokens: float) -> int:
    return max(0, round(tokens)) if np.isfinite(tokens) else 0
