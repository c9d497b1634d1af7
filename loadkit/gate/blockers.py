"""Why nothing can be decided: each check gives a reason or None; any reason means INCONCLUSIVE."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from loadkit.gate.failures import is_below, is_upper_bound, warm_cache
from loadkit.gate.inputs import MIN_REQUESTS, MIN_SESSIONS, Expected, Measured
from loadkit.gate.verdict import Code, Comparison, Reason, counted
from loadkit.runs.summary import MIN_ANSWERED_SHARE

# A rate that another draw would move by more than 10 points tells nothing apart.
MAX_HALF_WIDTH = 0.10
# More answers than this without cached tokens, and the rest may not stand for all.
MAX_UNREPORTED_SHARE = 0.01
# vLLM keeps a block or two for itself, so capacities of one setting differ slightly.
MAX_CAPACITY_DIFFERENCE = 0.01

Check = Callable[[Measured, Expected], Iterator[Reason]]

_SEND_MORE = "send more sessions, each with its own prompts"
_SAME_SETTING = (
    "run loadkit forecast again with the tokenizer, block size and capacity that is tested"
)


def blockers(run: Measured, expected: Expected) -> Iterator[Reason]:
    """Every reason for which this run or this forecast cannot be judged.

    A run that is not valid is not judged any further: what else it lacks follows from that.
    """
    if run.status == "invalid":
        yield _invalid_run(run)
        checks: tuple[Check, ...] = (_refused, _other_setting)
    else:
        checks = (_refused, _other_setting, _not_reported, _too_few, _too_small_log, _perhaps_warm)
    for check in checks:
        yield from check(run, expected)


def _invalid_run(run: Measured) -> Reason:
    late = [reason.code for reason in run.reasons] == ["invalid_timing"]
    code: Code = "invalid_timing" if late else "too_few_samples"
    why = ": " + "; ".join(reason.message for reason in run.reasons) if run.reasons else ""
    return Reason(code, f"the run is not valid{why}", None, None, "repeat the run")


def _refused(_: Measured, expected: Expected) -> Iterator[Reason]:
    if expected.status != "ok" or expected.hit_rate.estimate is None:
        needs = expected.needs or "the log is too small for the traffic asked about"
        message = "the forecast names no rate that can be relied on"
        yield Reason("forecast_refused", message, None, None, needs)


def _other_setting(run: Measured, expected: Expected) -> Iterator[Reason]:
    scenario, theirs = expected.scenario, expected.log.tokenizer_fingerprint
    ours = run.tokenizer.fingerprint if run.tokenizer else None
    pairs: tuple[tuple[str, object, object], ...] = (
        ("block size", run.block_size, scenario.block_size),
        ("tokenizer", ours, theirs),
        ("served tokenizer", run.endpoint.tokenizer_fingerprint, theirs),
    )
    for name, measured, forecast in pairs:
        if None not in (measured, forecast) and measured != forecast:
            message = f"the run has {name} {measured}, the forecast {forecast}"
            yield Reason("forecast_refused", message, None, None, _SAME_SETTING)
    if _capacities_differ(run.capacity_blocks, scenario.capacity_blocks):
        message = (
            f"the run has a cache of {run.capacity_blocks} blocks,"
            f" the forecast is for {scenario.capacity_blocks}"
        )
        yield Reason(
            "forecast_refused",
            message,
            run.capacity_blocks,
            scenario.capacity_blocks,
            _SAME_SETTING,
        )


def _capacities_differ(measured: int | None, forecast: int | None) -> bool:
    if measured is None or forecast is None:  # a forecast without capacity is an upper bound
        return False
    return abs(measured - forecast) > MAX_CAPACITY_DIFFERENCE * max(measured, forecast)


def _not_reported(run: Measured, _: Expected) -> Iterator[Reason]:
    answered = run.requests.get("ok", 0)
    silent = answered - run.split.requests
    if not answered or silent <= MAX_UNREPORTED_SHARE * answered:
        return
    if run.reconciliation.usage.cached_tokens is None:
        yield Reason(
            "not_reported",
            f"the server reported no cached tokens in {counted(answered, 'answer')}",
            None,
            None,
            "vLLM: --enable-prompt-tokens-details; SGLang: --enable-cache-report",
        )
    elif run.split.source is None:
        yield Reason(
            "not_reported",
            "cached tokens were reported, but without a prediction they cannot be split by cause",
            None,
            None,
            "run with --tokenizer and the server's block size",
        )
    else:
        yield Reason(
            "not_reported",
            f"{silent} of {counted(answered, 'answer')} came without cached tokens",
            silent,
            0,
            "find out which answers lack usage: requests.parquet, column cached_tokens",
        )


def _too_few(run: Measured, _: Expected) -> Iterator[Reason]:
    answered, sessions = run.requests.get("ok", 0), run.split.sessions
    scheduled = run.requests.get("scheduled", answered)
    if answered < MIN_REQUESTS:
        verb = "was" if answered == 1 else "were"
        message = (
            f"{counted(answered, 'request')} {verb} answered, at least {MIN_REQUESTS} are needed"
        )
        yield Reason("too_few_samples", message, answered, MIN_REQUESTS, _SEND_MORE)
    elif answered < MIN_ANSWERED_SHARE * scheduled:
        message = f"only {answered} of {scheduled} planned requests were answered"
        remedy = "look at `requests` in run.json; send less at once, or give the run more time"
        yield Reason("too_few_samples", message, answered, scheduled, remedy)
    elif run.split.requests and sessions < MIN_SESSIONS:
        message = f"the run has {counted(sessions, 'session')}, at least {MIN_SESSIONS} are needed"
        yield Reason("too_few_samples", message, sessions, MIN_SESSIONS, _SEND_MORE)


def _too_small_log(run: Measured, expected: Expected) -> Iterator[Reason]:
    """The forecast's side has the same minimum, unless the run's own reason says enough."""
    log = expected.log
    if expected.status != "ok" or not run.is_large_enough:
        return
    for number, noun, least in (
        (log.requests, "request", MIN_REQUESTS),
        (log.sessions, "session", MIN_SESSIONS),
    ):
        if number is not None and number < least:
            message = (
                f"the forecast is from a log of {counted(number, noun)}, at least {least} needed"
            )
            remedy = "make the forecast from a longer log of production"
            yield Reason("too_few_samples", message, number, least, remedy)
            return


def _perhaps_warm(run: Measured, _: Expected) -> Iterator[Reason]:
    """More hits than the answered requests explain may come from those whose answer never came."""
    reason = warm_cache(run)
    if reason and run.reconciliation.unanswered_requests:
        yield reason


def upper_bound_only(run: Measured, expected: Expected, rates: Comparison) -> Reason | None:
    """The reason why a low rate says nothing: the forecast is for a cache without limits."""
    capacity = run.capacity_blocks
    if not (is_upper_bound(run, expected) and is_below(rates)):
        return None
    return Reason(
        "forecast_refused",
        f"the forecast is for an unlimited cache, the run has one of {capacity} blocks, so a rate"
        " below it may be the cache's or the traffic's doing",
        rates.measured,
        rates.expected_low,
        f"run loadkit forecast again with --capacity {capacity}",
    )


def too_uncertain(run: Measured) -> Reason | None:
    """The reason why a rate that looks right is not good enough: its half width is too large."""
    half_width, sessions = run.split.hit_rate_half_width, run.split.sessions
    if half_width is None or half_width <= MAX_HALF_WIDTH:
        return None
    needed = round(sessions * (half_width / MAX_HALF_WIDTH) ** 2)
    return Reason(
        "too_few_samples",
        f"another draw of {sessions} such sessions would move the hit rate by"
        f" ±{100 * half_width:.0f} points, more than the {100 * MAX_HALF_WIDTH:.0f} that may be",
        half_width,
        MAX_HALF_WIDTH,
        f"send about {needed} sessions",
    )
