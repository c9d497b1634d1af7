"""What another hit rate does to the time to first token: the run replayed through a step server.

The server (`step_server`) has two parameters, seconds a step and seconds a token. They are those
that make the mean of |log(predicted / measured TTFT)| least at the times at which the run was sent,
found on a grid that gets finer. Each tenth of the sessions is then predicted with parameters found
without it: the held-out error.

Rule: nothing is predicted unless (1) 30 requests of 10 sessions have TTFT and cached tokens, (2) the
median held-out error is 25% at most: less than what the rates in question change, (3) the mean
held-out error is 20% less than that of a constant, the median TTFT of the other sessions: else the
run says nothing about what tokens do, (4) the seconds a token are sure within a factor of
1.5 (95%, other draws of the sessions): they are what another rate is multiplied with. And a rate
gets no time where half of the requests would compute more than any has computed here, or that no
common change of the hits reaches: that would be a guess.

The answer is the run once more with every request's uncached share at the other rate, each request
as long after its predecessor's completion as it was. Its interval: the ends of the rate's own
interval, and beyond them what other draws of the sessions say (95%), the model's miss at the run's own
rate and the median held-out error, added in squares: what it does not know here it will not know there. Sessions are drawn with replacement only to weigh their errors: what is
replayed is always the whole run, so no draw makes replays.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

import msgspec
import numpy as np

from loadkit.core.trace import FloatArray, IntArray
from loadkit.gate.requests import Requests
from loadkit.report.search import Found, Search
from loadkit.report.step_server import BUDGET_TOKENS, Traffic, replayed
from loadkit.report.traffic import answered, traffic_of, uncached_at

MIN_REQUESTS, MIN_SESSIONS = 30, 10
MAX_ERROR, MAX_OF_CONSTANT, MAX_FACTOR = log(1.25), 0.8, 1.5
SHARES = np.linspace(0.01, 0.99, 99)
_MAX_POINTS = 250
# A replay takes some nanoseconds a step and a fit some 2,000 replays: ten seconds at most.
MAX_TOKENS = 1_000_000 * BUDGET_TOKENS


class Rate(msgspec.Struct, frozen=True):
    """A hit rate to ask about."""

    label: str
    rate: float
    low: float | None = None
    high: float | None = None


class Answer(msgspec.Struct, frozen=True):
    """TTFT in seconds at a rate: of each share of requests in SHARES, the time that they are
    within, with its interval. Empty with `why_not`."""

    label: str
    hit_rate: float
    why_not: str | None = None
    ttft_s: tuple[float, ...] = ()
    low_s: tuple[float, ...] = ()
    high_s: tuple[float, ...] = ()


class Fit(msgspec.Struct, frozen=True):
    """why_not: why the model is refused, None if it holds.

    step_s, slope_s: seconds a step and a token; slope_interval: 95%. error, constant_error: median and mean held-out |log|, of model and constant.
    ratio: measured / predicted TTFT, 10th, 50th and 90th percentile, held out. measured_s, own_s: at
    SHARES, measured and by the model. points: (measured seconds, measured / predicted, cause) of
    some requests, for the picture. num_cold: requests that computed more than half of their prompt.
    """

    label: str
    n: int
    why_not: str | None
    num_cold: int = 0
    hit_rate: float | None = None
    step_s: float | None = None
    slope_s: float | None = None
    slope_interval: tuple[float, float] | None = None
    error: tuple[float, float] | None = None
    constant_error: tuple[float, float] | None = None
    ratio: tuple[float, float, float] | None = None
    measured_s: tuple[float, ...] = ()
    own_s: tuple[float, ...] = ()
    points: tuple[tuple[float, float, str], ...] = ()
    answer: Answer | None = None


def fit(label: str, requests: Requests, rate: Rate | None, *, closed: bool) -> Fit:
    """Fit one run's requests and answer for `rate`; see the rule above. closed: the loop it ran in."""
    rows = answered(requests)
    sessions, session = np.unique(requests.session[rows], return_inverse=True)
    if why := _too_little(len(rows), len(sessions)):
        return Fit(label, len(rows), why)
    traffic = traffic_of(requests, rows, closed=closed)
    if why := _too_much(traffic.uncached):
        return Fit(label, len(rows), why)
    ttft, prompt = requests.number["ttft_s"][rows], requests.number["prompt_tokens"][rows]
    search = Search(traffic, ttft, session.reshape(-1))
    drawn = search.drawn()
    error, constant = search.held_out(), search.constant()
    ends = np.quantile([found[1] for found in drawn], [0.025, 0.975])
    slope = (exp(min(ends[0], search.all[1])), exp(max(ends[1], search.all[1])))
    why_not = _why_not(np.abs(error), np.abs(constant), slope)
    own = _quantiles(replayed(traffic, *np.exp(search.all), as_sent=False))
    measured = np.quantile(ttft, SHARES)
    answer = None
    if rate is not None and why_not is None:
        miss = np.hypot(np.log(measured) - np.log(own), np.median(np.abs(error)))
        answer = _answer(rate, search, drawn, prompt, miss)
    causes, spread = requests.main_cause[rows], np.exp(np.quantile(error, [0.1, 0.5, 0.9]))
    return Fit(
        label=label,
        n=len(rows),
        why_not=why_not,
        num_cold=int((2 * traffic.uncached > prompt).sum()),
        hit_rate=1.0 - float(traffic.uncached.sum() / prompt.sum()),
        step_s=exp(search.all[0]),
        slope_s=exp(search.all[1]),
        slope_interval=slope,
        error=_size(error),
        constant_error=_size(constant),
        ratio=(float(spread[0]), float(spread[1]), float(spread[2])),
        measured_s=tuple(measured.tolist()),
        own_s=tuple(own.tolist()),
        points=tuple((float(ttft[n]), exp(error[n]), str(causes[n])) for n in _some(len(rows))),
        answer=answer,
    )


def _too_little(requests: int, sessions: int) -> str | None:
    if requests < MIN_REQUESTS:
        return f"{requests} requests have both a TTFT and cached tokens, {MIN_REQUESTS} are needed"
    if sessions < MIN_SESSIONS:
        return f"they are of {sessions} sessions, {MIN_SESSIONS} are needed"
    return None


def _too_much(uncached: FloatArray) -> str | None:
    if float((uncached / MAX_TOKENS).sum()) <= 1:
        return None
    return (
        f"its requests would compute more than {MAX_TOKENS:,} tokens, one of them"
        f" {uncached.max():,.6g}: too long to replay; look for a wrong count in requests.parquet"
    )


def _why_not(error: FloatArray, constant: FloatArray, slope: tuple[float, float]) -> str | None:
    middle = float(np.median(error))
    if not middle <= MAX_ERROR:
        return (
            f"on sessions that it has not seen the model is off by {100 * (exp(middle) - 1):.0f}% in"
            " the median, more than 25%: something else than computing tokens in order decides it"
        )
    if not error.mean() < MAX_OF_CONSTANT * constant.mean():
        return (
            "uncached tokens tell too little here: on sessions that it has not seen the model's mean"
            f" error is {error.mean():.2f}, that of one and the same time for all {constant.mean():.2f}"
            " (log scale), and a fifth less is asked for"
        )
    if not slope[1] < MAX_FACTOR**2 * slope[0]:
        return (
            "what a token costs is not sure within a factor of 1.5:"
            f" {1e3 * slope[0]:.3g} to {1e3 * slope[1]:.3g} ms, by other draws of these sessions"
        )
    return None


def _answer(
    rate: Rate, search: Search, drawn: Sequence[Found], prompt: FloatArray, miss: FloatArray
) -> Answer:
    """miss: log(measured / model) at SHARES at the run's own rate, and the held-out error."""
    traffic = search.traffic
    ends = [rate.rate if end is None else end for end in (rate.high, rate.rate, rate.low)]
    found = [uncached_at(end, prompt, traffic.uncached) for end in ends]
    known = [uncached for uncached in found if uncached is not None]
    if len(known) < len(found):
        why = "no common change of what hits leads to this rate from here: too much hits nothing"
        return Answer(rate.label, rate.rate, why)
    if too_much := _too_much(known[2]):
        return Answer(rate.label, rate.rate, too_much)
    if float(np.median(known[1])) > float(traffic.uncached.max()):
        why = "half of the requests would compute more tokens than any has computed here"
        return Answer(rate.label, rate.rate, why)
    least, middle, most = (_at(traffic._replace(uncached=each), search.all) for each in known)
    low = _spread(traffic._replace(uncached=known[0]), drawn, least, 0.025)
    high = _spread(traffic._replace(uncached=known[2]), drawn, most, 0.975)
    below, above = least - np.hypot(low, miss), most + np.hypot(high, miss)
    times = (tuple(np.sort(np.exp(each)).tolist()) for each in (middle, below, above))
    return Answer(rate.label, rate.rate, None, *times)


def _at(traffic: Traffic, found: Found) -> FloatArray:
    """log TTFT at SHARES."""
    found_s = replayed(traffic, exp(found[0]), exp(found[1]), as_sent=False)
    ttft: FloatArray = np.log(_quantiles(found_s))
    return ttft


def _spread(
    traffic: Traffic, drawn: Sequence[Found], middle: FloatArray, share: float
) -> FloatArray:
    """How far this quantile of what the draws say lies from the middle."""
    each = {found: _at(traffic, found) for found in set(drawn)}
    ends: FloatArray = np.quantile([each[found] for found in drawn], share, axis=0)
    return ends - middle


def _quantiles(ttft_s: FloatArray) -> FloatArray:
    found: FloatArray = np.quantile(ttft_s, SHARES)
    return found


def _size(error: FloatArray) -> tuple[float, float]:
    return float(np.median(np.abs(error))), float(np.abs(error).mean())


def _some(count: int) -> IntArray:
    chosen: IntArray = np.unique(
        np.linspace(0, count - 1, min(count, _MAX_POINTS)).round().astype(int)
    )
    return chosen
