"""One trial: hide most of a production trace, forecast it from the rest, compare."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from loadkit.analysis.curve import hit_curve
from loadkit.analysis.reuse import reuse_of
from loadkit.core.trace import Trace
from loadkit.forecast import Forecast, forecast
from loadkit.forecast.torn import MIN_GAPS, seen_gaps
from loadkit.forecast.turns import Turns
from loadkit.traces.sessions import infer_sessions

# Shares of production's distinct blocks at which forecasts are judged.
CAPACITY_SHARES = (0.03, 0.1, 0.25, 2.0)
TARGET = 0.05


@dataclass(frozen=True)
class Trial:
    """What came of one forecast; arrays are by capacity, in rates. Refused: only `refused` is set."""

    sessions: int
    refused: str | None = None
    error: npt.NDArray[np.float64] | None = None
    half: npt.NDArray[np.float64] | None = None
    own_rate: npt.NDArray[np.float64] | None = None  # errors of the naive answers
    scaled: npt.NDArray[np.float64] | None = None

    @property
    def covered(self) -> npt.NDArray[np.bool_]:
        assert self.error is not None
        assert self.half is not None
        return np.abs(self.error) <= self.half

    @property
    def wrongly_ok(self) -> npt.NDArray[np.bool_]:
        """Called ok at ±5 points, and the truth outside."""
        assert self.half is not None
        return (self.half <= TARGET) & ~self.covered


def sample_sessions(trace: Trace, share: float, seed: int) -> Trace:
    """A random share of the sessions, all of their requests; for logs of ids without replies."""
    random = np.random.default_rng([seed, 17])
    chosen = random.permutation(trace.num_sessions)[: max(1, round(share * trace.num_sessions))]
    return take_requests(trace, np.isin(trace.session, chosen))


def take_requests(trace: Trace, kept: npt.NDArray[np.bool_]) -> Trace:
    """The chosen requests of a log of ids without replies, ids and sessions made dense again."""
    assert trace.resident_ids is None
    assert trace.arrival_s is not None
    counts = np.diff(trace.block_ptr)
    touches = np.repeat(kept, counts)
    ids = np.unique(trace.block_ids[touches], return_inverse=True)[1].reshape(-1)
    session = np.unique(trace.session[kept], return_inverse=True)[1].reshape(-1)
    return replace(
        trace,
        prompt_tokens=trace.prompt_tokens[kept],
        block_ptr=np.concatenate([[0], np.cumsum(counts[kept])]),
        block_ids=ids,
        prompt_key=trace.prompt_key[kept],
        session=session,
        num_sessions=int(session.max()) + 1,
        output_tokens=trace.output_tokens[kept],
        arrival_s=trace.arrival_s[kept],
        chats=None,
        tenant=None if trace.tenant is None else trace.tenant[kept],
    )


def capacities_of(production: Trace) -> list[int | None]:
    distinct = production.num_unique_blocks
    return [max(1, int(share * distinct)) for share in CAPACITY_SHARES]


def rates_at(trace: Trace, capacities: list[int | None]) -> npt.NDArray[np.float64]:
    """Exact token-weighted rates, from the block-level pass (the forecast uses the other one)."""
    curve = hit_curve(reuse_of(trace))
    return np.array([curve.split(size).rate("hit") for size in capacities])


def session_trial(production: Trace, share: float, seed: int, **asked: Any) -> Trial:
    """Forecast production from a share of its sessions."""
    sample = sample_sessions(production, share, seed)
    sizes = capacities_of(production)
    answer = forecast(sample, production.num_sessions / sample.num_sessions, None,
                      curve_blocks=sizes, **asked)  # fmt: skip
    truth = rates_at(production, sizes)
    naive = [None if c is None else max(1, round(c * share)) for c in sizes]
    return _judged(answer, sample, truth, rates_at(sample, sizes), rates_at(sample, naive))


def prefix_trial(production: Trace, share: float, **asked: Any) -> Trial:
    """Forecast a whole window from its first part."""
    assert production.arrival_s is not None
    start, end = production.arrival_s[0], production.arrival_s[-1]
    log = take_requests(production, production.arrival_s <= start + share * (end - start))
    sizes = capacities_of(production)
    answer = forecast(log, 1.0, None, horizon_s=float(end - start), curve_blocks=sizes, **asked)
    truth = rates_at(production, sizes)
    last = _last_third(log, sizes)
    return _judged(answer, log, truth, rates_at(log, sizes), last)


def _judged(
    answer: Forecast,
    sample: Trace,
    truth: npt.NDArray[np.float64],
    own_rate: npt.NDArray[np.float64],
    scaled: npt.NDArray[np.float64],
) -> Trial:
    if answer.hit_rate.estimate is None:
        return Trial(sample.num_sessions, refused=answer.needs)
    points: Any = answer.curve
    rate = np.array([point.hit_rate for point in points])
    low, high = (np.array([getattr(point, end) for point in points]) for end in ("low", "high"))
    # Ends are cut at 0 and 1, so the uncut side tells the half width.
    half = np.maximum(rate - low, high - rate)
    return Trial(sample.num_sessions, None, rate - truth, half, own_rate - truth, scaled - truth)


def _last_third(log: Trace, sizes: list[int | None]) -> npt.NDArray[np.float64]:
    return np.array([forecast(log, 1.0, size).baselines.last_third for size in sizes])


def turns_of(trace: Trace) -> Turns:
    """What messages would show of a trace of ids: the earlier requests of the session whose chains
    the request's own begins with."""
    last_of: dict[int, list[int]] = {}
    ptr, tokens, keys = [0], [], []
    full = np.minimum(np.diff(trace.block_ptr), trace.prompt_tokens // trace.block_size)
    chains = [
        trace.block_ids[start : start + blocks]
        for start, blocks in zip(trace.block_ptr[:-1], full, strict=True)
    ]
    for row, who in enumerate(trace.session.tolist()):
        earlier = last_of.get(who, [])
        chain = chains[row]
        shown = [r for r in earlier if trace.prompt_tokens[r] < trace.prompt_tokens[row]
                 and np.array_equal(chains[r], chain[: len(chains[r])])]  # fmt: skip
        last_of[who] = [*shown, row]
        for turn in (*shown, row):
            tokens.append(int(trace.prompt_tokens[turn]))
            keys.append(int(trace.prompt_key[turn]))
        ptr.append(len(tokens))
    found = np.array(tokens)
    return Turns(np.array(ptr), found, found, np.array(keys))


def torn_log(production: Trace, share: float, seed: int) -> tuple[Trace, Turns]:
    """A random share of the requests, each drawn by itself, with sessions as they can be inferred;
    and the turns that their messages would show."""
    kept = np.random.default_rng([seed, 5]).random(production.num_requests) < share
    log = take_requests(production, kept)
    full = np.minimum(np.diff(log.block_ptr), log.prompt_tokens // log.block_size)
    session = infer_sessions(log.block_ptr, log.block_ids, full)
    log = replace(log, session=session, num_sessions=int(session.max()) + 1, sessions_inferred=True)
    return log, turns_of(production).of(np.flatnonzero(kept))


def request_trial(production: Trace, share: float, seed: int, **asked: Any) -> Trial:
    """Forecast production from a share of its requests. Four capacities, or an infinite cache only
    where the log does not show how far turns are apart (one capacity then)."""
    log, turns = torn_log(production, share, seed)
    sizes = capacities_of(production)
    times = production.num_requests / log.num_requests
    asked = {"sampled": "requests", "turns": turns} | asked
    if len(seen_gaps(log, turns.counts)) < MIN_GAPS:
        sizes = [None]
    answer = forecast(log, times, None, curve_blocks=sizes, **asked)
    truth = rates_at(production, sizes)
    naive = [None if c is None else max(1, round(c * share)) for c in sizes]
    return _judged(answer, log, truth, rates_at(log, sizes), rates_at(log, naive))


def tenant_trial(production: Trace, count: int, seed: int, unit: str) -> Trial:
    """Forecast production from all sessions of some tenants, whose prompts begin alike and unlike
    all others', with copies of tenants or, wrongly, of sessions."""
    opening = production.block_ids[production.block_ptr[:-1]]
    tenant = np.unique(opening, return_inverse=True)[1].reshape(-1)
    total = int(tenant.max()) + 1
    chosen = np.random.default_rng([seed, 6]).permutation(total)[:count]
    log = take_requests(replace(production, tenant=tenant), np.isin(tenant, chosen))
    sizes = capacities_of(production)
    answer = forecast(log, total / count, None, curve_blocks=sizes, sampled=unit)
    naive = [None if c is None else max(1, round(c * count / total)) for c in sizes]
    truth = rates_at(production, sizes)
    return _judged(answer, log, truth, rates_at(log, sizes), rates_at(log, naive))
