"""When the engine worked on a run's requests: what the client saw of it, and what it leaves open.

A client knows when it sent a request and when each token arrived. A token was computed before it
arrived, each at least a step of the engine before the next; a request that finds others running is
looked up between two steps. That gives one likeliest order of lookups, full blocks and ends. What the
client cannot see is drawn, DRAWS times:

- when a request reached the scheduler: from its sending on, up to its first token;
- how late tokens and ends were seen: from not at all up to the arrival of the token before;
- how long a step took at least: from nothing to the usual pace;
- whether blocks are freed one step later than the last token (asynchronous scheduling) or at once.

Each draw takes a larger share of that freedom than the one before: the first hardly any, the last all
of it. The least and the most hit tokens of all draws are the interval that a prediction states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from loadkit.analysis.reuse import Reuse
from loadkit.analysis.simulate.pools import Chains, Pool, Times, serve
from loadkit.core.trace import UNKNOWN, FloatArray, IntArray
from loadkit.runs.record import Record

DRAWS, LEAST_DRAWS = 40, 8
# Blocks of prompts looked up in all draws together: half a minute or so of one core.
MAX_TOUCHES = 4_000_000
AsTimes = Callable[[FloatArray, Sequence[FloatArray], Sequence[float], float], Times]
_PACE = 0.1  # the share of gaps between tokens that are shorter than a step is taken to be


@dataclass(frozen=True, slots=True)
class Seen:
    """What the client saw: sent_s (n,); token_s by row, when each output token was there at the latest;
    step_s: the usual shortest time between two tokens of one request, 0 where none is seen."""

    sent_s: FloatArray
    token_s: Sequence[FloatArray]
    step_s: float


@dataclass(frozen=True, slots=True)
class PoolHits:
    """Hit tokens (n,) in the likeliest order, and (draws, n) in others that the client cannot tell from
    it; no draws where there is only one order. drawn None: too much to serve it several times."""

    likeliest: IntArray
    drawn: IntArray | None


def pool_hits(
    pool: Callable[[Chains], Pool],
    reuse: Reuse,
    answered: Sequence[Record],
    draws: int = DRAWS,
    *,
    whole_steps: bool = False,
) -> PoolHits | None:
    """Serve the run's requests at the times of `answered`, which has the trace's rows in its order.
    None if a time of sending or of the end is missing. whole_steps: the server takes in all tokens
    of a step before it frees what has ended in it (the reference server), and they arrive together."""
    if any(record.sent_s is None or record.completed_s is None for record in answered):
        return None
    reuse = _with_lengths(reuse, answered)
    chains = Chains(reuse)
    seen = _seen(answered, chains.reply_tokens)
    none = np.zeros((0, len(chains)), np.int64)
    as_times = _in_whole_steps if whole_steps else _as_times
    likeliest = _hits(pool, chains, _times(seen, as_times))
    if not _overlap(seen):
        return PoolHits(likeliest, none)
    draws = min(draws, MAX_TOUCHES // max(1, reuse.trace.num_blocks))
    if 0 < draws < LEAST_DRAWS:
        return PoolHits(likeliest, None)
    rng = np.random.default_rng(0)
    shares = [(number + 1) / draws for number in range(draws)]
    drawn = [_hits(pool, chains, _drawn(seen, share, rng, as_times)) for share in shares]
    return PoolHits(likeliest, np.array(drawn) if drawn else none)


def _hits(pool: Callable[[Chains], Pool], chains: Chains, times: Times) -> IntArray:
    hits = serve(pool(chains), chains, times).hit_blocks * chains.block_size
    return np.minimum(hits, np.array(chains.prompt_tokens, np.int64))


def _with_lengths(reuse: Reuse, answered: Sequence[Record]) -> Reuse:
    """Where the log does not tell a reply's tokens, the server's count of them."""
    told = np.array([record.output_tokens or UNKNOWN for record in answered], np.int64)
    known = reuse.trace.output_tokens
    lengths = np.where(known == UNKNOWN, told, known)
    return replace(reuse, trace=replace(reuse.trace, output_tokens=lengths))


def _seen(answered: Sequence[Record], lengths: Sequence[int]) -> Seen:
    sent = np.array([record.sent_s for record in answered], np.float64)
    arrivals = [_arrivals(record, num) for record, num in zip(answered, lengths, strict=True)]
    gaps = np.concatenate([np.diff(each) for each in arrivals])
    gaps = gaps[gaps > 0]
    return Seen(sent, arrivals, float(np.quantile(gaps, _PACE)) if len(gaps) else 0.0)


def _arrivals(record: Record, num_tokens: int) -> FloatArray:
    """When each of a reply's tokens was there; what no event brought, at the end. An answer that was
    not streamed had them evenly over its time."""
    assert record.sent_s is not None
    assert record.completed_s is not None
    if record.first_token_s is None:
        shares = np.arange(1, num_tokens + 1) / num_tokens
        spread: FloatArray = record.sent_s + (record.completed_s - record.sent_s) * shares
        return spread
    events = record.first_token_s + np.cumsum([0.0, *record.gaps_s])
    counts = record.event_tokens or [1] * len(events)
    times = np.repeat(events, counts)[:num_tokens] if len(counts) == len(events) else events
    rest = np.full(num_tokens - len(times[:num_tokens]), record.completed_s)
    return np.concatenate([times[:num_tokens], rest])


def _overlap(seen: Seen) -> bool:
    """Whether a request was sent before all earlier ones had ended."""
    ends = np.maximum.accumulate([times[-1] for times in seen.token_s])
    return bool((seen.sent_s[1:] < ends[:-1]).any())


def _times(seen: Seen, as_times: AsTimes) -> Times:
    """The likeliest."""
    tokens = [
        _apart(each, seen.step_s, at) for each, at in zip(seen.token_s, seen.sent_s, strict=True)
    ]
    lookups = _between_steps(seen.sent_s, tokens, seen.step_s)
    return as_times(
        np.maximum.accumulate(lookups), tokens, [each[-1] for each in tokens], seen.step_s
    )


def _drawn(seen: Seen, share: float, rng: np.random.Generator, as_times: AsTimes) -> Times:
    """Others that are possible; see the module."""
    num = len(seen.sent_s)
    step_s = seen.step_s * (1 + share * rng.uniform(-1, 1))
    late = share * rng.uniform(size=num)
    tokens = []
    for row, arrivals in enumerate(seen.token_s):
        before = np.concatenate([seen.sent_s[row : row + 1], arrivals[:-1]])
        earlier = arrivals - late[row] * (arrivals - before)
        tokens.append(_apart(earlier, step_s, float(seen.sent_s[row])))
    first = np.array([each[0] for each in tokens])
    reached = seen.sent_s + share * rng.uniform(size=num) * (first - seen.sent_s)
    ends = [float(each[-1]) for each in tokens]
    if rng.uniform() < share / 2:
        ends = [end + seen.step_s for end in ends]
    return as_times(_between_steps(reached, tokens, step_s), tokens, ends, step_s)


def _apart(arrivals: FloatArray, step_s: float, sent_s: float) -> FloatArray:
    """The latest times that are a step apart and not after `arrivals`, nor before the sending."""
    pace = step_s * np.arange(len(arrivals))
    apart = np.minimum.accumulate((arrivals - pace)[::-1])[::-1] + pace
    latest: FloatArray = np.maximum(apart, sent_s)
    return latest


def _between_steps(
    reached_s: FloatArray, tokens: Sequence[FloatArray], step_s: float
) -> FloatArray:
    """When requests that reached the scheduler were looked up (n,): at once if nobody ran, else when
    the step under way was done; a step before their own first token at the latest."""
    done = np.sort(np.concatenate(tokens))
    first = np.array([each[0] for each in tokens])
    last = np.sort([each[-1] for each in tokens])
    begun = np.searchsorted(np.sort(first), reached_s, side="right")
    is_idle = begun - np.searchsorted(last, reached_s, side="right") <= 0
    following = done[np.minimum(np.searchsorted(done, reached_s), len(done) - 1)]
    latest = np.maximum(first - step_s, reached_s)
    lookups: FloatArray = np.where(is_idle, reached_s, np.clip(following, reached_s, latest))
    return lookups


def _as_times(
    lookups: FloatArray, tokens: Sequence[FloatArray], ends: Sequence[float], step_s: float
) -> Times:
    """What a step's end frees is free before the next one is scheduled, half a step later here. What
    ends in one step is freed in the order of admission, whoever's end was seen first. Who is looked up
    in one step was served in the order of the first tokens, whoever was sent first."""
    first = np.array([each[0] for each in tokens])
    lookups = _together(lookups, step_s / 2)
    served = np.lexsort((_together(first, step_s / 2), lookups))
    lookups[served] += 1e-9 * np.arange(len(served))
    last = np.array([max(end, each[-1]) for end, each in zip(ends, tokens, strict=True)])
    scheduled = [np.minimum(each + step_s / 2, each[-1]).tolist() for each in tokens]
    return Times(lookups, first, _together(last, step_s / 2), observed=True, token_s=scheduled)


def _together(ends: FloatArray, within_s: float) -> FloatArray:
    """The ends (n,), those within so many seconds of the first of them at the time of the last one."""
    order = np.argsort(ends, kind="stable")
    result, start = ends.copy(), 0
    for number in range(1, len(order) + 1):
        if number == len(order) or ends[order[number]] - ends[order[start]] > within_s:
            result[order[start:number]] = ends[order[number - 1]]
            start = number
    return result


def _in_whole_steps(
    lookups: FloatArray, tokens: Sequence[FloatArray], ends: Sequence[float], step_s: float
) -> Times:
    """Tokens less than half a step apart, of as many requests, are of one step: they were there when
    the first of them arrived."""
    rows = np.repeat(np.arange(len(tokens)), [len(each) for each in tokens])
    at = np.concatenate(tokens)
    order = np.lexsort((rows, at))
    together, start, had = at.copy(), -np.inf, set[int]()
    for place in order.tolist():
        row = int(rows[place])
        if row in had or at[place] - start > step_s / 2:
            start, had = float(at[place]), set()
        had.add(row)
        together[place] = start
    split = np.split(together, np.cumsum([len(each) for each in tokens])[:-1])
    late = [max(0.0, end - float(each[-1])) for end, each in zip(ends, tokens, strict=True)]
    first = np.array([each[0] for each in split])
    last = np.array([each[-1] + more for each, more in zip(split, late, strict=True)])
    token_s = [each.tolist() for each in split]
    return Times(np.minimum(lookups, first), first, last, observed=True, token_s=token_s)
