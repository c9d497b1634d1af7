"""Why a rate that looks right is not good enough: any reason means INCONCLUSIVE, not PASS."""

from __future__ import annotations

from collections.abc import Iterator

from loadkit.gate.blockers import send_more
from loadkit.gate.failures import counts_every_block, is_upper_bound
from loadkit.gate.inputs import Expected, Measured
from loadkit.gate.requests import Requests
from loadkit.gate.verdict import Comparison, Reason, counted
from loadkit.thresholds import Thresholds

_OTHER_CAUSES = 0.10  # points that may be continuation here and shared there


def doubts(
    run: Measured,
    expected: Expected,
    rates: Comparison,
    limits: Thresholds,
    requests: Requests | None,
) -> Iterator[Reason]:
    """Why a rate that looks right is not good enough."""
    for reason in (
        _too_uncertain(run, rates, limits),
        _uneven(requests, limits),
        _upper_bound_only(run, expected, rates),
        _larger_cache(run, limits),
        _made_otherwise(run, expected, rates),
    ):
        if reason is not None:
            yield reason


def left_early(run: Measured, rates: Comparison, limits: Thresholds) -> Iterator[Reason]:
    """What users left has no cached tokens, and a patience shorter than a cache miss leaves the misses:
    a hit answers sooner. So the true rate lies between the measured one and that with every prompt
    that was left (of mean length: its tokens are not known) a miss. Only what both agree on counts.
    """
    measured, low, high = rates.measured, rates.expected_low, rates.expected_high
    if not run.left or measured is None or low is None or high is None:
        return
    allowance = rates.allowance or limits.allowance
    least = measured * run.split.requests / (run.split.requests + run.left)
    if any(least < edge <= measured for edge in (low - allowance, high + allowance)):
        message = (
            f"{counted(run.left, 'request')} of {run.left + run.split.requests:,} were left by their"
            f" users, and nobody knows what they hit: with all of them missed the hit rate is"
            f" {100 * least:.1f}%, without them {100 * measured:.1f}%"
        )
        remedy = (
            "let fewer leave (request.leaving), or later than a prompt takes that is not cached"
        )
        yield Reason("not_reported", message, least, measured, remedy, (least, measured))


def _uneven(requests: Requests | None, limits: Thresholds) -> Reason | None:
    """A few giant sessions are the whole rate, and how they differ from others nobody saw. Kish's
    number of equal sessions that would be worth as much: (sum w)^2 / sum w^2."""
    if requests is None:
        return None
    tokens = requests.by_session(requests.number["prompt_tokens"], requests.is_ok)
    worth = float(tokens.sum() ** 2 / (tokens**2).sum()) if tokens.any() else 0.0
    if worth >= limits.min_effective_sessions:
        return None
    largest = tokens.max() / tokens.sum() if tokens.any() else 0.0
    message = (
        f"the largest of {counted(len(tokens), 'session')} has {100 * largest:.0f}% of all prompt"
        f" tokens, so they are worth {worth:.1f} equal ones, at least"
        f" {limits.min_effective_sessions:g} are needed"
    )
    least = limits.min_effective_sessions
    return Reason(
        "too_few_samples",
        message,
        worth,
        least,
        send_more(len(tokens) * least / max(worth, 1e-9)) + ", of like sizes",
    )


def _made_otherwise(run: Measured, expected: Expected, rates: Comparison) -> Reason | None:
    """The rate is production's, its causes are not: near copies of prompts, torn sessions. No FAIL,
    since a log without session ids does not know for certain what continues what."""
    ours, theirs = run.split.continuation_rate, expected.split.continuation
    if ours is None or theirs is None or rates.allowance is None:
        return None
    if abs(ours - theirs) <= max(_OTHER_CAUSES, 2 * rates.allowance):
        return None
    return Reason(
        "unlike_production",
        f"the hit rate is as high as production's, but made otherwise: {100 * ours:.1f} points"
        f" continue a session's own history, in production {100 * theirs:.1f};"
        f" {100 * (run.split.shared_rate or 0.0):.1f} are shared with other sessions, in production"
        f" {100 * (expected.split.shared or 0.0):.1f}",
        ours,
        theirs,
        "send whole sessions, each under its own name; if the log has no session ids, forecast from"
        " one that has",
    )


def _larger_cache(run: Measured, limits: Thresholds) -> Reason | None:
    """More hits than LRU of the reported size gives: a cache of other blocks, or of other runs'."""
    found, tokens = run.reconciliation, run.split.prompt_tokens
    resident, cached = found.resident_tokens, found.usage.cached_tokens
    if resident is None or cached is None or not tokens:
        return None
    if (cached - resident[1]) / tokens <= limits.allowance:
        return None
    return Reason(
        "warm_cache",
        f"the server took {cached:,} tokens from its cache, but {found.prediction_capacity_blocks:,}"
        f" blocks under LRU hold only {resident[1]:,} of what was sent: the cache was not empty at"
        " the start, is larger than reported, or evicts better",
        cached / tokens,
        resident[1] / tokens,
        "empty the cache first (loadkit run --reset); forecast with the capacity that is served",
    )


def _upper_bound_only(run: Measured, expected: Expected, rates: Comparison) -> Reason | None:
    """A small run hardly evicts: its rate may equal an unlimited cache's, and production's not."""
    capacity = run.capacity_blocks
    if not is_upper_bound(run, expected):
        return None
    if counts_every_block(run, expected):
        return Reason(
            "forecast_refused",
            "the forecast counts every block as kept, the server keeps states or windows at a few places"
            " of a prompt: production may see less than the forecast says, and staging with it or not",
            rates.measured,
            rates.expected_low,
            "run loadkit forecast again at 1x with --model-config, the served model's config.json",
            rates.interval,
        )
    return Reason(
        "forecast_refused",
        f"the forecast is for an unlimited cache, the run has one of {capacity} blocks: production"
        " may see less than the forecast says, and staging with it or not",
        rates.measured,
        rates.expected_low,
        f"run loadkit forecast again with --capacity {capacity}",
        rates.interval,
    )


def _too_uncertain(run: Measured, rates: Comparison, limits: Thresholds) -> Reason | None:
    """The reason why a rate that looks right is not good enough: its half width is too large, or
    nobody knows it."""
    sessions = run.split.sessions
    if rates.interval is None or rates.half_width is None:
        message = "how far chance moves the measured hit rate is not known"
        return Reason("too_few_samples", message, rates.measured, None, send_more(2 * sessions))
    if rates.half_width <= limits.max_half_width:
        return None
    needed = round(sessions * (rates.half_width / limits.max_half_width) ** 2)
    return Reason(
        "too_few_samples",
        f"another draw of {sessions} such sessions would move the hit rate by"
        f" ±{100 * rates.half_width:.0f} points, more than the"
        f" {100 * limits.max_half_width:.0f} that may be",
        rates.half_width,
        limits.max_half_width,
        send_more(needed),
        rates.interval,
    )
