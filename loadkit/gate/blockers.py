"""Why nothing can be decided: each check gives reasons or none; any reason means INCONCLUSIVE."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil

from loadkit.gate.failures import impossible_answers, is_proven, warm_cache
from loadkit.gate.inputs import Expected, Measured
from loadkit.gate.verdict import Code, Reason, counted
from loadkit.runs.plausible import CounterDoubts
from loadkit.thresholds import Thresholds

_ROUNDING = 1e-9  # of a difference of two rates
_WIDEST = 0.2  # the widest that max_half_width may be set to
_SAME_SETTING = (
    "run loadkit forecast again with the tokenizer, block size and capacity that is tested"
)
_SERVED_TOKENIZER = "run again with the served model's own folder or name as --tokenizer"
_ALONE = "let nobody else use the server during the run"
# Codes in run.json that say the clock, not the traffic, made a run invalid.
_LATE = frozenset({"invalid_timing", "loop_stalled", "loop_stall", "stalled", "stalls"})


def send_more(sessions: float) -> str:
    """The command that sends so many sessions."""
    return (
        f"send more sessions, each with its own prompts: loadkit run PROFILE --set"
        f" traffic.sessions={ceil(sessions):,}".replace(",", "")
    )


def run_blockers(run: Measured, limits: Thresholds) -> Iterator[Reason]:
    """Every reason for which this run cannot be judged, whatever it is compared with.

    A run that is not valid is not judged any further: what else it lacks follows from that.
    """
    if run.status == "invalid":
        yield _invalid_run(run)
        return
    for check in (_template_differs, _late, _not_reported, _too_few, _perhaps_warm, *_WITNESSES):
        yield from check(run, limits)


def forecast_blockers(run: Measured, expected: Expected, limits: Thresholds) -> Iterator[Reason]:
    """Every reason for which this forecast's rate says nothing about this run's. What the server's
    cache does with what was sent can be judged all the same."""
    yield from _without_interval(expected)
    yield from _other_setting(run, expected, limits)
    if run.status != "invalid":
        yield from _too_small_log(run, expected, limits)


def forecast_doubts(expected: Expected, limits: Thresholds) -> Iterator[Reason]:
    """Why no run passes by this forecast; one that lies beyond both of its ends fails all the same."""
    yield from _refused(expected, limits)
    yield from _full_of_replays(expected, limits)


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


def _without_interval(expected: Expected) -> Iterator[Reason]:
    rate = expected.hit_rate
    if rate.estimate is None or expected.status != "ok" or None not in (rate.low, rate.high):
        return
    if rate.method != "exact":
        message = "the forecast has no interval, so nobody can tell how far off it may be"
        remedy = "make it again with this version's loadkit forecast"
        yield Reason("forecast_refused", message, None, rate.estimate, remedy)


def _refused(expected: Expected, limits: Thresholds) -> Iterator[Reason]:
    """No rate at all, or one that is less sure than was asked for, or than the gate allows."""
    rate, needs = expected.hit_rate, expected.needs
    if rate.estimate is None or None in (rate.low, rate.high):
        if expected.status != "ok" or rate.estimate is None:
            message = "the forecast names no rate that can be relied on"
            remedy = needs or "make it from a longer log: loadkit forecast LONGER_LOG -o FILE"
            yield Reason("forecast_refused", message, None, rate.estimate, remedy)
        return
    low, high = rate.low or 0.0, rate.high or 0.0
    half, most = (high - low) / 2, limits.max_half_width
    seen = f"{100 * low:.1f}% to {100 * high:.1f}%, ±{100 * half:.2f} points"
    longer = f"narrow it: {needs}" if needs else "forecast from a longer log of production"
    if half > most + _ROUNDING:
        message = (
            f"the forecast is only sure to {seen}, at most {100 * most:g} may be: nearly any run"
            " would fit it"
        )
        remedy = longer
        if half <= _WIDEST:
            allowed = ceil(1000 * half - 1e-6) / 1000
            remedy += f"; or accept it: max_half_width: {allowed:g} in gate.yaml, loadkit gate --policy gate.yaml"
        yield Reason("forecast_refused", message, half, most, remedy)
    elif expected.status != "ok":
        message = f"the forecast names no rate that can be relied on: {seen}, is less sure than was asked for"
        accepted = ceil(1000 * half - 1e-6) / 10
        remedy = f"accept that width: loadkit forecast LOG --target {accepted:g}; or {longer}"
        yield Reason("forecast_refused", message, half, None, remedy)


def _full_of_replays(expected: Expected, limits: Thresholds) -> Iterator[Reason]:
    """A log that is itself full of replays."""
    replay = expected.split.replay_rate
    if replay is not None and replay > limits.max_expected_replay:
        message = (
            f"{100 * replay:.0f} points of the forecast itself are replays, so its log looks like a"
            " test's, or has sessions twice"
        )
        remedy = (
            "forecast from a log of real users; if yours do send the same prompts again, set"
            f" max_expected_replay: {ceil(100 * replay) / 100:g} in gate.yaml, loadkit gate --policy"
            " gate.yaml"
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
                model = " --model-config CONFIG" if run.endpoint.kept_blocks else ""
                remedy = (
                    f"run loadkit forecast again with --block-size {measured}{model}, from a log of"
                    " text or token ids"
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


def _template_differs(run: Measured, limits: Thresholds) -> Iterator[Reason]:
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


def _late(run: Measured, limits: Thresholds) -> Iterator[Reason]:
    """The policy's own limit; a run's own makes it invalid by itself. A closed loop is never late."""
    limit, delay = limits.max_schedule_delay_p99_s, run.schedule_delay_s.p99
    if limit is None or run.loop == "closed" or delay is None or delay <= limit:
        return
    message = f"p99 of the schedule delay is {delay:.3f} s, the policy allows {limit:g} s"
    remedy = "use more load processes, less traffic or a quieter machine"
    yield Reason("invalid_timing", message, delay, limit, remedy)


def _not_reported(run: Measured, limits: Thresholds) -> Iterator[Reason]:
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
        remedy = (
            "start the server with --enable-prompt-tokens-details (vLLM) or --enable-cache-report"
            " (SGLang); or let its counters confirm the prediction: /metrics open to this key, loadkit"
            " run --tokenizer MODEL --block-size N"
        )
    elif run.split.source is None:
        message = (
            "cached tokens were reported, but without a prediction they cannot be split by cause"
        )
        remedy = (
            "loadkit run --tokenizer MODEL --block-size N, as the server has them, or a server that"
            " returns token ids"
        )
    else:
        message = f"{silent} of {said} came without cached tokens"
        remedy = "find out which answers lack usage: requests.parquet, column cached_tokens"
        yield Reason("not_reported", message, silent, 0, remedy)
        return
    yield Reason("not_reported", message, None, None, remedy)


def _too_few(run: Measured, limits: Thresholds) -> Iterator[Reason]:
    answered, sessions = run.answered, run.split.sessions
    scheduled = run.requests.scheduled - run.left
    if answered < limits.min_requests:
        verb, least = "was" if answered == 1 else "were", limits.min_requests
        message = f"{counted(answered, 'request')} {verb} answered, at least {least} are needed"
        enough = max(limits.min_sessions, sessions * least / max(1, answered))
        yield Reason("too_few_samples", message, answered, least, send_more(enough))
    elif answered < limits.min_answered_share * scheduled:
        message = f"only {answered} of {scheduled} planned requests were answered"
        remedy = "look at `requests` in run.json; send less at once, or give the run more time"
        yield Reason("too_few_samples", message, answered, scheduled, remedy)
    elif run.split.requests and sessions < limits.min_sessions:
        least = limits.min_sessions
        message = f"the run has {counted(sessions, 'session')}, at least {least} are needed"
        yield Reason("too_few_samples", message, sessions, least, send_more(least))


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
            remedy = "make it from a longer log: loadkit forecast LONGER_LOG -o FILE"
            yield Reason("too_few_samples", message, number, least, remedy)
            return


def _perhaps_warm(run: Measured, _: Thresholds) -> Iterator[Reason]:
    """More hits than the answered requests explain may come from those whose answer or record is missing."""
    reason = warm_cache(run)
    if reason and not run.all_known:
        yield reason


def _perhaps_impossible(run: Measured, limits: Thresholds) -> Iterator[Reason]:
    """A few answers that cannot be true, or that requests without an answer may explain."""
    reason = impossible_answers(run)
    if reason and not is_proven(run, limits):
        yield reason


def _not_comparable(run: Measured, limits: Thresholds) -> Iterator[Reason]:
    """An answer whose prompt the server counts otherwise cannot be held against what was sent."""
    found = run.reconciliation
    judged, reported = found.impossible.judged, run.split.requests
    if found.usage.cached_tokens is None or found.prediction.cached_tokens is None:
        return
    aside = found.impossible.off_grid + found.impossible.unreadable
    if judged + aside >= (1 - limits.max_unreported_share) * reported:
        return
    message = (
        f"in {reported - judged:,} of {counted(reported, 'answer')} the server counts other prompt"
        " tokens than --tokenizer, so nobody can tell what they could reuse"
    )
    remedy = "loadkit run --tokenizer MODEL with the served model's tokenizer and chat template"
    yield Reason("witnesses_differ", message, judged, reported, remedy)


def _counters(run: Measured, limits: Thresholds) -> Iterator[Reason]:
    """Counters that cannot have counted this run alone: by bounds on what was answered and sent."""
    found = run.reconciliation.counters
    total = found.prompt_tokens or 0
    short, over = found.queries_short or 0, found.queries_over or 0
    least = limits.allowance * total
    if found.restarted:
        message = "the server's counters fell, or another process showed them, during the run"
        remedy = "find out why it started again, then repeat loadkit run"
    elif found.silent:
        message = f"the server's counters stood still while it answered {total:,} prompt tokens"
        remedy = (
            "/metrics is of another server, or of a router that does not count: loadkit run --url"
            " with the address of the engine itself"
        )
    elif short > least:
        message = (
            f"the server's counters lack {short:,} of {total:,} prompt tokens that were answered"
            f"{_when(found)}: they are of a part of the servers, or stopped"
        )
        remedy = (
            "loadkit run --url with the address of one engine, or of a router whose /metrics add up"
            " all of them (loadkit serve --replicas N)"
        )
    elif over > least:
        message = (
            f"the server's counters have {over:,} prompt tokens more than the {total:,} that this run"
            f" sent{_when(found)}: somebody else used the server"
        )
        remedy = f"{_ALONE}, then repeat loadkit run"
    else:
        return
    yield Reason("counters_doubtful", message, max(short, over), 0, remedy)


def _when(found: CounterDoubts) -> str:
    return "" if found.at_s is None else f", at {found.at_s:.0f} s into the run"


def _witnesses_differ(run: Measured, limits: Thresholds) -> Iterator[Reason]:
    """Usage fields and the server's own counters, as rates: a counter also counts what a preempted
    request asks for twice, so that sums need not agree. Counters also have what users left and what
    failed inside; usage does not, so their rates may differ by as much as those requests' share."""
    usage, counters = run.reconciliation.usage_all_phases.rate, run.reconciliation.prometheus.rate
    silent = run.reconciliation.unanswered_requests
    allowance = limits.allowance + silent / max(1, silent + run.answered)
    if usage is None or counters is None or abs(usage - counters) <= allowance:
        yield from _differ_on_the_way(run, limits)
        return
    message = (
        f"answers say that {100 * usage:.1f}% of prompt tokens came from the cache, the server's"
        f" own counters {100 * counters:.1f}%"
    )
    if silent:
        message += f"; {counted(silent, 'request')} without an answer cannot explain that much"
    remedy = f"{_ALONE}, then repeat loadkit run; the parts are in run.json, reconciliation"
    yield Reason("witnesses_differ", message, usage, counters, remedy)


def _differ_on_the_way(run: Measured, limits: Thresholds) -> Iterator[Reason]:
    """In sum they agree, but not when the hits were counted: answers report others' hits."""
    found = run.reconciliation.counters
    off = max(found.hits_short or 0, found.hits_over or 0)
    if off <= limits.allowance * (found.prompt_tokens or 0):
        return
    message = (
        f"the server's counters and its answers were {off:,} cached tokens apart in mid-run, although"
        " not at the end: the answers do not report their own hits"
    )
    remedy = "report it to the server's makers; the readings are in server_metrics.parquet"
    yield Reason("witnesses_differ", message, off, 0, remedy)


def _counters_against_prediction(run: Measured, limits: Thresholds) -> Iterator[Reason]:
    """Where no answer reports cached tokens, the other two decide, if they agree."""
    found = run.reconciliation
    counters, predicted = found.prometheus, found.prediction_all_phases
    if found.usage.cached_tokens is not None or found.impossible.unreadable:
        return
    if counters.rate is None or predicted.rate is None or not predicted.prompt_tokens:
        return
    split = run.split.source == "predicted"
    if split and abs(counters.rate - predicted.rate) <= limits.allowance:
        return
    message = (
        f"the server's counters say that {100 * counters.rate:.1f}% of prompt tokens came from the"
        f" cache, the prediction {100 * predicted.rate:.1f}%, and no answer says which is right"
    )
    remedy = (
        "start the server with --enable-prompt-tokens-details (vLLM) or --enable-cache-report"
        " (SGLang), so that its answers say it"
    )
    yield Reason("witnesses_differ", message, counters.rate, predicted.rate, remedy)


def _one_witness(run: Measured, limits: Thresholds) -> Iterator[Reason]:
    """A count that nothing confirms. A prediction for an unlimited cache does so only where the server
    reused that much: less may be eviction, or a wrong count."""
    found, tokens = run.reconciliation, run.split.prompt_tokens
    usage, allowed = found.usage.cached_tokens, found.allowed_tokens
    if usage is None or not tokens or found.prometheus.rate is not None:
        return
    if run.endpoint.prefix_caching is False:
        return
    if allowed is None:
        message = "only the answers say how much was cached: nothing confirms it"
        remedy = (
            "loadkit run --tokenizer MODEL --block-size N, as the server has them, or let this key"
            " read /metrics"
        )
    elif (
        found.prediction_capacity_blocks is None and allowed[0] - usage > limits.allowance * tokens
    ):
        message = (
            f"the answers say {usage:,} cached tokens, an unlimited cache would have had"
            f" {allowed[0]:,}, and neither the cache's size nor a counter tells whether that is eviction"
        )
        remedy = "let this key read /metrics of the server: they tell both"
    else:
        return
    yield Reason("not_reported", message, usage, allowed and allowed[0], remedy)


_WITNESSES: tuple[Callable[[Measured, Thresholds], Iterator[Reason]], ...] = (
    *(_perhaps_impossible, _not_comparable, _counters, _witnesses_differ),
    *(_counters_against_prediction, _one_witness),
)
