"""Why nothing can be decided: each check gives reasons or none; any reason means INCONCLUSIVE."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from loadkit.gate.failures import warm_cache
from loadkit.gate.inputs import Expected, Measured
from loadkit.gate.verdict import Code, Reason, counted
from loadkit.thresholds import Thresholds

Check = Callable[[Measured, Expected, Thresholds], Iterator[Reason]]

_ROUNDING = 1e-9  # of a difference of two rates
SEND_MORE = "send more sessions, each with its own prompts"
_SAME_SETTING = (
    "run loadkit forecast again with the tokenizer, block size and capacity that is tested"
)
_SERVED_TOKENIZER = "run again with the served model's own folder or name as --tokenizer"
# Codes in run.json that say the clock, not the traffic, made a run invalid.
_LATE = frozenset({"invalid_timing", "loop_stalled", "loop_stall", "stalled", "stalls"})


def blockers(run: Measured, expected: Expected, limits: Thresholds) -> Iterator[Reason]:
    """Every reason for which this run or this forecast cannot be judged.

    A run that is not valid is not judged any further: what else it lacks follows from that.
    """
    if run.status == "invalid":
        yield _invalid_run(run)
        checks: tuple[Check, ...] = (_refused, _other_setting)
    else:
        checks = (
            *(_refused, _other_setting, _template_differs, _late, _not_reported),
            *(_too_few, _too_small_log, _perhaps_warm, _witnesses_differ),
        )
    for check in checks:
        yield from check(run, expected, limits)


def is_large_enough(run: Measured, limits: Thresholds) -> bool:
    """Whether anything can be said about how far chance moves the rate. With few sessions their
    spread is itself unknown (the error of a standard deviation from n values is about
    1 / sqrt(2 (n - 1)): 24% at 10), and so is any half width."""
    return run.answered >= limits.min_requests and run.split.sessions >= limits.min_sessions


def _invalid_run(run: Measured) -> Reason:
    late = bool(run.reasons) and {reason.code for reason in run.reasons} <= _LATE
    code: Code = "invalid_timing" if late else "too_few_samples"
    why = ": " + "; ".join(reason.message for reason in run.reasons) if run.reasons else ""
    remedy = "repeat the run; is the server still up? `errors` in run.json says what went wrong"
    return Reason(
        code, f"the run is not valid{why}", None, None, "repeat the run" if late else remedy
    )


def _refused(_: Measured, expected: Expected, limits: Thresholds) -> Iterator[Reason]:
    rate = expected.hit_rate
    if expected.status != "ok" or rate.estimate is None:
        needs = expected.needs or "the log is too small for the traffic asked about"
        seen = (
            ""
            if rate.low is None or rate.high is None
            else (
                f": {100 * rate.low:.1f}% to {100 * rate.high:.1f}% is less sure than was asked for"
            )
        )
        message = f"the forecast names no rate that can be relied on{seen}"
        yield Reason("forecast_refused", message, None, rate.estimate, needs)
    elif None in (rate.low, rate.high) and rate.method != "exact":
        message = "the forecast has no interval, so nobody can tell how far off it may be"
        remedy = "make it again with this version's loadkit forecast"
        yield Reason("forecast_refused", message, None, rate.estimate, remedy)
    else:
        yield from _vague(expected, limits)


def _vague(expected: Expected, limits: Thresholds) -> Iterator[Reason]:
    """A forecast that nearly any run fits, or whose log is itself full of replays."""
    low, high = expected.hit_rate.low, expected.hit_rate.high
    half = 0.0 if low is None or high is None else (high - low) / 2
    if half > limits.max_half_width + _ROUNDING:
        message = (
            f"the forecast is only sure to ±{100 * half:.0f} points, at most"
            f" {100 * limits.max_half_width:.0f} may be: nearly any run would fit it"
        )
        remedy = expected.needs or "make the forecast from a longer log of production"
        yield Reason("forecast_refused", message, half, limits.max_half_width, remedy)
    replay = expected.split.replay_rate
    if replay is not None and replay > limits.max_expected_replay:
        message = (
            f"{100 * replay:.0f} points of the forecast itself are replays, so its log looks like a"
            " test's, or has sessions twice"
        )
        remedy = (
            "forecast from a log of real users; if yours do send the same prompts again, set"
            " max_expected_replay in gate.yaml"
        )
        yield Reason("forecast_refused", message, replay, limits.max_expected_replay, remedy)


def _other_setting(run: Measured, expected: Expected, limits: Thresholds) -> Iterator[Reason]:
    scenario, theirs = expected.scenario, expected.log.tokenizer_fingerprint
    ours = run.tokenizer.fingerprint if run.tokenizer else None
    pairs: tuple[tuple[str, object, object], ...] = (
        ("model", run.endpoint.model, expected.log.model),
        ("block size", run.block_size, scenario.block_size),
        ("tokenizer and chat template", ours, theirs),
        ("served tokenizer and chat template", run.endpoint.tokenizer_fingerprint, theirs),
    )
    for name, measured, forecast in pairs:
        if None not in (measured, forecast) and measured != forecast:
            message = f"the run has {name} {measured}, the forecast {forecast}"
            remedy = _SAME_SETTING
            if name == "block size":
                remedy = (
                    f"run loadkit forecast again with --block-size {measured}, from a log of text or"
                    " token ids"
                )
            yield Reason("forecast_refused", message, None, None, remedy)
    if limits.require_fingerprints and None in (ours or run.endpoint.tokenizer_fingerprint, theirs):
        who = "forecast" if theirs is None else "run"
        message = f"the {who} does not say which tokenizer and chat template it is for"
        yield Reason("forecast_refused", message, None, None, _SAME_SETTING)
    if _capacities_differ(run.capacity_blocks, scenario.capacity_blocks, limits):
        message = (
            f"the run has a cache of {run.capacity_blocks} blocks,"
            f" the forecast is for {scenario.capacity_blocks}"
        )
        figures = run.capacity_blocks, scenario.capacity_blocks
        yield Reason("forecast_refused", message, *figures, _SAME_SETTING)


def _template_differs(run: Measured, _: Expected, limits: Thresholds) -> Iterator[Reason]:
    """Servers say no fingerprint, but which tokens a prompt has, or how many. A prediction of the
    server's own ids does not need the tokenizer."""
    if run.prompt_ids is not None and run.prompt_ids.source == "server":
        return
    if said := other_template(run):
        assert run.template is not None
        assert run.template.first is not None
        first = run.template.first
        figures = first.server_tokens, first.local_tokens
        yield Reason("template_differs", said, *figures, _SERVED_TOKENIZER)
    else:
        yield from _counts_differ(run, limits)


def _counts_differ(run: Measured, limits: Thresholds) -> Iterator[Reason]:
    """The prediction is of every answer, usage of those that have it: sums of other requests say
    nothing."""
    found = run.reconciliation
    if run.split.requests != run.answered:
        return
    served, counted_here = found.usage.prompt_tokens, found.prediction.prompt_tokens
    if served is None or counted_here is None:
        return
    if abs(served - counted_here) > limits.allowance * served:
        message = (
            f"the server counted {served:,} prompt tokens where --tokenizer counts"
            f" {counted_here:,}: it has another tokenizer or chat template"
        )
        yield Reason("template_differs", message, served, counted_here, _SERVED_TOKENIZER)


def other_template(run: Measured) -> str | None:
    """What differs between the server's prompts and those of the run's tokenizer; None: nothing that
    was compared."""
    found = run.template
    if found is None or not found.different or found.first is None:
        return None
    server, ours, at = found.first.server_tokens, found.first.local_tokens, found.first.first_token
    where = "" if at is None else f", from token {at:,} on"
    return (
        f"{found.different:,} of {counted(found.compared, 'prompt')} are not what --tokenizer makes"
        f" of them: the first has {server:,} tokens on the server and {ours:,} here{where}, so the"
        " server has another tokenizer or chat template"
    )


def _capacities_differ(measured: int | None, forecast: int | None, limits: Thresholds) -> bool:
    """vLLM keeps a block or two for itself, so capacities of one setting differ slightly."""
    if measured is None or forecast is None:  # a forecast without capacity is an upper bound
        return False
    return abs(measured - forecast) > limits.max_capacity_difference * max(measured, forecast)


def _late(run: Measured, _: Expected, limits: Thresholds) -> Iterator[Reason]:
    """The policy's own limit; a run's own makes it invalid by itself. A closed loop is never late."""
    limit, delay = limits.max_schedule_delay_p99_s, run.schedule_delay_s.p99
    if limit is None or run.loop == "closed" or delay is None or delay <= limit:
        return
    message = f"p99 of the schedule delay is {delay:.3f} s, the policy allows {limit:g} s"
    remedy = "use more load processes, less traffic or a quieter machine"
    yield Reason("invalid_timing", message, delay, limit, remedy)


def _not_reported(run: Measured, _: Expected, limits: Thresholds) -> Iterator[Reason]:
    if run.endpoint.prefix_caching is False:  # vLLM leaves out cached tokens that are 0
        return
    answered = run.answered
    silent = answered - run.split.requests
    if not answered or (
        silent <= limits.max_unreported_share * answered and run.split.hit_rate is not None
    ):
        return
    said = counted(answered, "answer")
    if run.reconciliation.usage.cached_tokens is None:
        message = f"the server reported no cached tokens in {said}"
        remedy = "vLLM: --enable-prompt-tokens-details; SGLang: --enable-cache-report"
    elif run.split.source is None:
        message = (
            "cached tokens were reported, but without a prediction they cannot be split by cause"
        )
        remedy = "run with --tokenizer and the server's block size, or on a server that returns token ids"
    else:
        message = f"{silent} of {said} came without cached tokens"
        remedy = "find out which answers lack usage: requests.parquet, column cached_tokens"
        yield Reason("not_reported", message, silent, 0, remedy)
        return
    yield Reason("not_reported", message, None, None, remedy)


def _too_few(run: Measured, _: Expected, limits: Thresholds) -> Iterator[Reason]:
    answered, sessions = run.answered, run.split.sessions
    scheduled = run.requests.scheduled - run.left
    if answered < limits.min_requests:
        verb, least = "was" if answered == 1 else "were", limits.min_requests
        message = f"{counted(answered, 'request')} {verb} answered, at least {least} are needed"
        yield Reason("too_few_samples", message, answered, least, SEND_MORE)
    elif answered < limits.min_answered_share * scheduled:
        message = f"only {answered} of {scheduled} planned requests were answered"
        remedy = "look at `requests` in run.json; send less at once, or give the run more time"
        yield Reason("too_few_samples", message, answered, scheduled, remedy)
    elif run.split.requests and sessions < limits.min_sessions:
        least = limits.min_sessions
        message = f"the run has {counted(sessions, 'session')}, at least {least} are needed"
        yield Reason("too_few_samples", message, sessions, least, SEND_MORE)


def _too_small_log(run: Measured, expected: Expected, limits: Thresholds) -> Iterator[Reason]:
    """The forecast's side has the same minimum, unless the run's own reason says enough."""
    log = expected.log
    if expected.status != "ok" or not is_large_enough(run, limits):
        return
    for number, noun, least in (
        (log.requests, "request", limits.min_requests),
        (log.sessions, "session", limits.min_sessions),
    ):
        if number is not None and number < least:
            message = (
                f"the forecast is from a log of {counted(number, noun)}, at least {least} needed"
            )
            remedy = "make the forecast from a longer log of production"
            yield Reason("too_few_samples", message, number, least, remedy)
            return


def _perhaps_warm(run: Measured, _: Expected, __: Thresholds) -> Iterator[Reason]:
    """More hits than the answered requests explain may come from those whose answer never came."""
    reason = warm_cache(run)
    if reason and run.reconciliation.unanswered_requests:
        yield reason


def _witnesses_differ(run: Measured, _: Expected, limits: Thresholds) -> Iterator[Reason]:
    """Usage fields and the server's own counters, as rates: a counter also counts what a preempted
    request asks for twice, so that sums need not agree. Counters also have what users left and what
    failed inside; usage does not, so their rates may differ by as much as those requests' share."""
    usage, counters = run.reconciliation.usage_all_phases.rate, run.reconciliation.prometheus.rate
    silent = run.reconciliation.unanswered_requests
    allowance = limits.allowance + silent / max(1, silent + run.answered)
    if usage is None or counters is None or abs(usage - counters) <= allowance:
        return
    message = (
        f"answers say that {100 * usage:.1f}% of prompt tokens came from the cache, the server's"
        f" own counters {100 * counters:.1f}%"
    )
    if silent:
        message += f"; {counted(silent, 'request')} without an answer cannot explain that much"
    remedy = "let nobody else use the server during the run; see reconciliation in run.json"
    yield Reason("not_reported", message, usage, counters, remedy)
