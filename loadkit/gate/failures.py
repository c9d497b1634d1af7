"""Why staging is not production: each check gives a reason or None. A reason means FAIL, but for a
rate that may be low because the run is short."""

from __future__ import annotations

from collections.abc import Iterator

from loadkit.gate.inputs import SAME_RATE, Expected, Measured
from loadkit.gate.verdict import INCONCLUSIVE, Comparison, Reason, counted
from loadkit.thresholds import Thresholds

_ROUNDING = 1e-9  # of a difference of two rates
_AS_LONG = 0.8  # of the forecast's sessions: with fewer, a low rate may be a cold cache's
_NEW_PROMPTS = (
    "send what users send: sessions with their own prompts (loadkit run chat-assistant), or a"
    " corpus without repetition"
)


def hard_failures(run: Measured, limits: Thresholds) -> Iterator[Reason]:
    """Faults that need no sample size: counts of the run itself, and a setting of the server.

    A wrap is planned, not observed: a run that is not valid may have ended before it.
    """
    impossible, warm = impossible_answers(run), warm_cache(run)
    if impossible and is_proven(run, limits):
        yield impossible
    if warm and run.all_known:
        yield warm
    if run.endpoint.prefix_caching is False:
        yield Reason(
            "cache_underperforms",
            "prefix caching is off at the server: nothing that is sent can hit",
            run.split.hit_rate,
            None,
            "start it with prefix caching on (vLLM: --enable-prefix-caching)",
        )
    if run.wraps > limits.max_wraps and run.status == "ok":
        again = counted(run.wraps, "time")
        yield Reason(
            "wrapped_corpus",
            f"the corpus or log was started again {again}, so prompts were sent again",
            run.wraps,
            limits.max_wraps,
            "use a larger corpus or fewer requests",
        )
    if run.mutations:
        yield Reason(
            "append_only_violation",
            f"{counted(run.mutations, 'request')} rewrote the session's history and went unsent",
            run.mutations,
            0,
            "append to the history; never edit, reorder or drop earlier messages",
        )


def is_proven(run: Measured, limits: Thresholds) -> bool:
    """Whether impossible answers move the rate for certain: every request is known, and what was too
    much is more than the least difference that counts."""
    found, tokens = run.reconciliation, run.split.prompt_tokens or 0
    return run.all_known and (found.impossible.excess_tokens > limits.allowance * tokens)


def impossible_answers(run: Measured) -> Reason | None:
    """Answers with more cached tokens than any request of the run could have left there for them, with
    parts of blocks, or with no number of tokens at all."""
    found = run.reconciliation.impossible
    if not found.count:
        return None
    kinds = (
        (found.beyond, "more cached tokens than could have been there"),
        (found.off_grid, "a part of a block"),
        (found.unreadable, "a count that cannot be"),
    )
    said = ", ".join(f"{counted(count, 'answer')} with {what}" for count, what in kinds if count)
    first = "; ".join(f"{one.session} turn {one.turn}: {one.why}" for one in found.first)
    why = "the cache was not empty at the start, or the server does not tell the truth"
    if found.off_grid and not found.beyond:
        why = "its blocks are of another size than --block-size says, or it does not tell the truth"
    return Reason(
        "impossible_answers",
        f"{said} of {run.answered:,}: {why}. The first: {first}",
        found.count,
        0,
        "empty the cache first: loadkit run --reset; where the server cannot, loadkit run --set"
        " cache=salt. If it happens again, the server's usage fields are wrong: report it there",
    )


def warm_cache(run: Measured) -> Reason | None:
    """More cached tokens than the answered requests could reuse. A fault only if every request was
    answered: others may have left blocks behind, too."""
    found = run.reconciliation
    cached, possible = found.usage.cached_tokens, found.prediction_infinite_tokens
    if cached is None or possible is None or cached <= possible:
        return None
    aside = ""
    if found.unanswered_requests:
        silent = counted(found.unanswered_requests, "request")
        aside = f", or {silent} without an answer put them there"
    if run.records_lost:
        aside += ", or requests whose records were lost put them there"
    return Reason(
        "warm_cache",
        f"the server took {cached:,} tokens from its cache, but what was sent could reuse at most"
        f" {possible:,}: the cache was not empty at the start{aside}",
        cached,
        possible,
        "empty the prefix cache before the run (loadkit run --reset), or send other prompts"
        " (--seed), and let nobody else use the server",
    )


def rate_failures(
    run: Measured, expected: Expected, rates: Comparison, limits: Thresholds
) -> Iterator[Reason]:
    """Faults of the hit rate: too high, right for the wrong reason, too low. A forecast that is less
    sure than it should be still has two ends, and beyond both is beyond."""
    if rates.measured is None or rates.expected_low is None or rates.expected_high is None:
        yield from cache_failures(run, limits)
        return
    allowance = rates.allowance or limits.allowance
    excused = rates.replay_allowance or limits.allowance
    if is_unsure(expected, limits):  # so is its share of replays, by as much
        excused += (rates.expected_high - rates.expected_low) / 2
    if rates.measured > rates.expected_high + allowance:
        yield _above(run, expected, rates, rates.expected_high + allowance)
    elif _excess_replay(rates) > excused:
        yield _wrong_reason(rates)
    elif run.endpoint.prefix_caching is False:
        return  # `hard_failures` says so: that the rate is low follows
    elif underperforms := list(cache_failures(run, limits)):
        yield from underperforms
    elif is_below(rates, limits) and not is_upper_bound(run, expected):
        yield _below(run, expected, rates)


def cache_failures(run: Measured, limits: Thresholds) -> Iterator[Reason]:
    """What needs no forecast: the server's cache beside what was sent."""
    if underperforms := _underperforms(run, limits):
        yield underperforms


def is_unsure(expected: Expected, limits: Thresholds) -> bool:
    """Whether the forecast's interval is wider than it was asked to be, or than the gate allows."""
    low, high = expected.hit_rate.low, expected.hit_rate.high
    half = 0.0 if low is None or high is None else (high - low) / 2
    return expected.status != "ok" or half > limits.max_half_width + _ROUNDING


def is_upper_bound(run: Measured, expected: Expected) -> bool:
    """Whether the forecast is for an unlimited cache and the run has one that would lower it. The
    forecast's own curve may show that it would not: production fits into it. Or the forecast counts
    every block as kept, and the server keeps states and windows at a few places."""
    if counts_every_block(run, expected):
        return True
    capacity, best = run.capacity_blocks, expected.hit_rate.estimate
    if capacity is None or expected.scenario.capacity_blocks is not None:
        return False
    return not any(
        point.capacity_blocks <= capacity and point.hit_rate >= (best or 0.0) - SAME_RATE
        for point in expected.curve
    )


def counts_every_block(run: Measured, expected: Expected) -> bool:
    """Whether the forecast is of another rule than the server's: one that hits more."""
    return bool(run.endpoint.kept_blocks) and not expected.scenario.kept_blocks


def is_below(rates: Comparison, limits: Thresholds) -> bool:
    """Whether the measured rate is lower than chance explains; False where a figure is unknown."""
    if rates.measured is None or rates.expected_low is None:
        return False
    return rates.measured < rates.expected_low - (rates.allowance or limits.allowance)


def _excess_replay(rates: Comparison) -> float:
    """Share of prompt tokens that were hit as replays, beyond what production has; an unknown
    expectation counts as none, so that replays are never excused by not knowing."""
    return max(0.0, (rates.measured_replay or 0.0) - (rates.expected_replay or 0.0))


def _above(run: Measured, expected: Expected, rates: Comparison, limit: float) -> Reason:
    measured, high = rates.measured or 0.0, rates.expected_high or 0.0
    excess = _excess_replay(rates)
    head = (
        f"staging measured a hit rate of {_percent(measured)} (token-weighted), production should"
        f" see {_percent(high)}{_plus(limit - high)}"
    )
    if _hit_own_replies(run, expected, rates, limit):
        return _own_replies(run, rates, head)
    if measured - excess <= limit:
        why = (
            f"; {_points(rates.measured_replay)} of it are prompts that {_who(run)} had already"
            f" sent; without the replays that production does not have,"
            f" {_percent(measured - excess)} is left"
        )
        return Reason("replay_mirage", head + why, measured, high, _NEW_PROMPTS, rates.interval)
    parts = {
        "replay": rates.measured_replay or 0.0,
        "continuation": run.split.continuation_rate or 0.0,
        "shared prefixes": run.split.shared_rate or 0.0,
    }
    largest = max(parts, key=lambda name: parts[name])
    why = f"; replays do not explain it: most hits come from {largest} ({_points(parts[largest])})"
    remedy = "compare turns, system prompts and their popularity with the production log's"
    if is_shorter(run, expected):
        remedy = f"so short a run evicts little: {_like_with_like(run, expected)}; then {remedy}"
    return Reason("unlike_production", head + why, measured, high, remedy, rates.interval)


def _hit_own_replies(run: Measured, expected: Expected, rates: Comparison, limit: float) -> bool:
    """Whether a replay is above a forecast without replies for nothing but longer continuations. More
    replays than chance explains are a fault whatever the replies."""
    if run.kind != "replay" or expected.log.replies:
        return False
    if _excess_replay(rates) > (rates.replay_allowance or 0.0):
        return False
    continued = (run.split.continuation_rate or 0.0) - (expected.split.continuation or 0.0)
    return (rates.measured or 0.0) - max(0.0, continued) <= limit


def _own_replies(run: Measured, rates: Comparison, head: str) -> Reason:
    message = (
        f"{head}; but {_points(run.split.continuation_rate)} of it continue histories: the server may"
        " have computed the log's replies itself (same model, temperature 0), which this forecast"
        " leaves out"
    )
    remedy = (
        "the true rate lies between the forecasts with and without replies: forecast without"
        " --prompts-only and compare"
    )
    figures = rates.measured, rates.expected_high
    return Reason("unlike_production", message, *figures, remedy, rates.interval, INCONCLUSIVE)


def _who(run: Measured) -> str:
    cross, same = run.split.replay_cross_session_rate, run.split.replay_same_session_rate
    if not same:
        return "other sessions"
    if not cross:
        return "the same session"
    return f"others ({_points(cross)}) or the same session ({_points(same)})"


def _wrong_reason(rates: Comparison) -> Reason:
    return Reason(
        "unlike_production",
        f"the hit rate of {_percent(rates.measured)} is as high as production's, but for another"
        f" reason: {_points(rates.measured_replay)} of it are replayed prompts, production has"
        f" {_points(rates.expected_replay)}",
        rates.measured_replay,
        rates.expected_replay,
        _NEW_PROMPTS,
    )


def _underperforms(run: Measured, limits: Thresholds) -> Reason | None:
    """The server served less from its cache than LRU of its size would; needs its capacity.

    Running requests hold their blocks, so in a tight cache the smaller of the two predictions
    counts: one request after another, and with overlap.
    """
    found, tokens = run.reconciliation, run.split.prompt_tokens
    cached = found.usage.cached_tokens
    if found.resident_tokens is None or not tokens or cached is None:
        return None
    resident = found.resident_tokens[0]
    if (resident - cached) / tokens <= limits.allowance:
        return None
    return Reason(
        "cache_underperforms",
        f"the server took {cached:,} tokens from its cache, but {resident:,} of what was sent were"
        f" there to take in {found.prediction_capacity_blocks:,} blocks",
        cached / tokens,
        resident / tokens,
        "look for cache resets, salts, another eviction policy or a smaller cache than reported",
    )


def _below(run: Measured, expected: Expected, rates: Comparison) -> Reason:
    """A shorter run finds a colder cache, and documents that nobody has asked for yet: no fault."""
    message = (
        f"staging measured a hit rate of {_percent(rates.measured)} (token-weighted), production"
        f" should see at least {_percent(rates.expected_low)}"
    )
    figures = rates.measured, rates.expected_low
    if run.kind == "replay" and expected.log.replies:
        message += "; but a replay's histories may hold replies that this server never computed"
        remedy = "forecast what a replay can hit: loadkit forecast --prompts-only"
        interval = rates.interval
        return Reason("unlike_production", message, *figures, remedy, interval, INCONCLUSIVE)
    if is_shorter(run, expected):
        message += (
            f"; but {counted(run.split.sessions, 'session')} find a colder cache than the"
            f" {expected.sessions or 0:,.0f} that the forecast is for"
        )
        remedy = f"{_like_with_like(run, expected)}, or send more sessions"
        return Reason("too_few_samples", message, *figures, remedy, rates.interval, INCONCLUSIVE)
    remedy = "compare turns, system prompts and their popularity with the production log's"
    message += f": its prompts share less{_parts(run, expected)}"
    return Reason("unlike_production", message, *figures, remedy, rates.interval)


def _parts(run: Measured, expected: Expected) -> str:
    """Where the points are missing, so that whoever wrote the profile knows what to change."""
    found, wanted = run.split, expected.split
    if None in (found.continuation_rate, found.shared_rate, wanted.continuation, wanted.shared):
        return ""
    return (
        f" (continuation {_percent(found.continuation_rate)}, production"
        f" {_percent(wanted.continuation)}; shared {_percent(found.shared_rate)}, production"
        f" {_percent(wanted.shared)})"
    )


def is_shorter(run: Measured, expected: Expected) -> bool:
    """Whether the run has too few sessions to find the cache as warm as the forecast says."""
    return run.split.sessions < _AS_LONG * (expected.sessions or 0)


def _like_with_like(run: Measured, expected: Expected) -> str:
    """The forecast to compare a short run with."""
    share = run.split.sessions / (expected.sessions or 1)
    horizon = expected.scenario.horizon_s or expected.log.duration_s
    if horizon is None:
        return "forecast from a part of the log that is as short"
    return f"forecast the same cold start: loadkit forecast --horizon {horizon * share:.0f}"


def _percent(rate: float | None) -> str:
    return "an unknown rate" if rate is None else f"{100 * rate:.1f}%"


def _points(rate: float | None) -> str:
    return "an unknown number of points" if rate is None else f"{100 * rate:.1f} points"


def _plus(allowance: float) -> str:
    return f" (at most {100 * allowance:.1f} points more by chance)"
