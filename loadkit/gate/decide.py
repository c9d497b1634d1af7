"""Put the checks together: FAIL outweighs INCONCLUSIVE outweighs PASS.

A fault that needs no sample size (a warm cache, a wrapped corpus) fails even a short run. Rates are
judged only if nothing forbids it; a PASS also needs a rate that is certain enough.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from loadkit.gate.baseline import Change, Run, changes, check_counts, open_run
from loadkit.gate.blockers import forecast_blockers, forecast_doubts, other_template, run_blockers
from loadkit.gate.doubts import doubts, left_early
from loadkit.gate.failures import cache_failures, hard_failures, is_shorter, rate_failures
from loadkit.gate.inputs import Expected, Measured, checked
from loadkit.gate.objectives import missed
from loadkit.gate.policy import Policy, loosened, policy_of
from loadkit.gate.rates import compare
from loadkit.gate.regression import regressions
from loadkit.gate.requests import Requests
from loadkit.gate.verdict import (
    CODES,
    FAIL,
    INCONCLUSIVE,
    PASS,
    QUESTIONS,
    Check,
    Comparison,
    Reason,
    Verdict,
    counted,
)
from loadkit.runs.splits import unexplained_note

_BLOCK_CODES = ("warm_cache", "impossible_answers", "cache_underperforms")
_RATE_CODES = ("replay_mirage", "unlike_production", "cache_underperforms")


def decide_folder(
    folder: Path,
    expected: dict[str, Any],
    *,
    baseline: Path | None = None,
    policy_file: Path | None = None,
    where: str | Path = "--expected",
) -> Verdict:
    """Judge a run folder. InputError for what cannot be read: the folder, forecast or policy."""
    found = open_run(folder)
    check_counts(found, folder)
    old = open_run(baseline) if baseline else None
    policy = policy_of(found.data, policy_file)
    return _decide(found.measured, checked(expected, Expected, where), policy, found, old)


def decide(run: dict[str, Any], expected: dict[str, Any], policy: Policy | None = None) -> Verdict:
    """Judge run.json (`loadkit.run/1`) alone against a forecast (`loadkit.forecast/1`): intervals
    are those it states, objectives cannot be judged. InputError if one is not what it should be."""
    measured = checked(run, Measured, "--measured")
    forecast = checked(expected, Expected, "--expected")
    return _decide(measured, forecast, policy or policy_of(run), None, None)


def _decide(
    run: Measured, forecast: Expected, policy: Policy, found: Run | None, old: Run | None
) -> Verdict:
    limits = policy.thresholds
    requests = found.requests if found else None
    rates = compare(run, forecast, limits, requests)
    hard = list(hard_failures(run, limits))
    of_run = list(run_blockers(run, limits)) or list(left_early(run, rates, limits))
    of_forecast = list(forecast_blockers(run, forecast, limits))
    unsure = list(forecast_doubts(forecast, limits))
    of_rate: list[Reason] = []
    if not of_run:
        of_rate = list(
            cache_failures(run, limits)
            if of_forecast
            else rate_failures(run, forecast, rates, limits)
        )
    open_questions = [*of_run, *of_forecast, *unsure]
    changed = changes(found, old, limits.confidence) if found and old else ()
    asked = of_rate + _asked(run, policy, requests, found, old, changed)
    failures = [*(reason for reason in asked if reason.verdict == FAIL), *hard]
    if forecast.scenario.block_size not in (None, run.block_size):
        # One of the two sizes is wrong, perhaps the run's: what is counted in blocks proves nothing.
        open_questions += (reason for reason in failures if _counts_blocks(reason))
        failures = [reason for reason in failures if not _counts_blocks(reason)]
    if not failures and not open_questions and not of_rate:
        open_questions += doubts(run, forecast, rates, limits, requests)
    open_questions += (reason for reason in asked if reason.verdict == INCONCLUSIVE)
    return _verdict(
        failures,
        [msgspec.structs.replace(reason, verdict=INCONCLUSIVE) for reason in open_questions],
        rates,
        policy,
        _skipped(run, policy, requests, old)
        | _unasked(failures, bool(of_run), bool(of_forecast or unsure)),
        _notes(run, forecast, policy, requests),
        _baseline(old, changed),
    )


def _counts_blocks(reason: Reason) -> bool:
    """Whether a fault rests on the prediction; a setting of the server has nothing to compare with."""
    return reason.code in _BLOCK_CODES and reason.expected is not None


def _asked(
    run: Measured,
    policy: Policy,
    requests: Requests | None,
    found: Run | None,
    old: Run | None,
    changed: tuple[Change, ...],
) -> list[Reason]:
    """Objectives and regressions: only where somebody named some, and of a valid run only."""
    if run.status != "ok":
        return []
    reasons = list(missed(requests, policy)) if requests else []
    if found and old:
        reasons += regressions(found, old, changed, policy.thresholds)
    return reasons


def _verdict(
    failures: list[Reason],
    open_questions: list[Reason],
    rates: Comparison,
    policy: Policy,
    skipped: dict[str, str],
    notes: list[str],
    baseline: dict[str, Any] | None,
) -> Verdict:
    reasons = (*failures, *open_questions)
    return Verdict(
        verdict=FAIL if failures else INCONCLUSIVE if open_questions else PASS,
        reasons=reasons,
        hit_rate=rates,
        checks=tuple(_checks(reasons, skipped)),
        notes=tuple(notes),
        baseline=baseline,
        thresholds=policy.thresholds.model_dump() | {
            "slo": policy.slo.model_dump() if policy.slo else None
        },
        thresholds_from=policy.source,
    )  # fmt: skip


def _checks(reasons: Iterable[Reason], skipped: dict[str, str]) -> Iterable[Check]:
    for code in CODES:
        found = [reason for reason in reasons if reason.code == code]
        if found:
            failed = any(reason.verdict == FAIL for reason in found)
            says = "; ".join(reason.message for reason in found)
            yield Check(code, QUESTIONS[code], "failed" if failed else "inconclusive", says)
        elif code in skipped:
            yield Check(code, QUESTIONS[code], "skipped", skipped[code])
        else:
            yield Check(code, QUESTIONS[code], "passed")


def _unasked(failures: list[Reason], blocked: bool, unsure: bool) -> dict[str, str]:
    """Why checks of the rate were not made, or not to their end: the first that fails explains it."""
    if blocked:
        return dict.fromkeys(_RATE_CODES, "not judged: something else forbids it")
    found = [reason.code for reason in failures if reason.code in _RATE_CODES]
    if found:
        return dict.fromkeys(_RATE_CODES, f"not judged: {found[0]} explains the rate")
    if unsure:
        says = "judged only as far as the forecast can be relied on"
        return dict.fromkeys(("replay_mirage", "unlike_production"), says)
    return {}


def _skipped(
    run: Measured, policy: Policy, requests: Requests | None, old: Run | None
) -> dict[str, str]:
    """Codes that were not asked about, and why."""
    why: dict[str, str] = {}
    if run.reconciliation.prediction_capacity_blocks is None:
        why["cache_underperforms"] = "the server's capacity is not known"
    if run.reconciliation.prediction.cached_tokens is None:
        why["impossible_answers"] = "no prediction: nobody knows what could have been there"
    if run.reconciliation.counters.readings == 0:
        why["counters_doubtful"] = "the server shows no counters"
    if policy.slo is None:
        why["slo_missed"] = "no objectives: name `slo` in the profile or in gate.yaml"
    elif requests is None or run.status != "ok":
        why["slo_missed"] = "not judged: no valid run folder"
    if old is None:
        why["regression"] = "no baseline: name one with --baseline"
    elif run.status != "ok":
        why["regression"] = "not judged: the run is not valid"
    return why


def _notes(
    run: Measured, forecast: Expected, policy: Policy, requests: Requests | None
) -> list[str]:
    notes = [run.reconciliation.says]
    if run.prompt_ids and run.prompt_ids.source == "server" and (differs := other_template(run)):
        notes.append(f"{differs}; the run's figures are made of the server's own token ids")
    if forecast.log.tokenizer_fingerprint is None:
        notes.append(
            "the forecast names no tokenizer (its log came as block ids), so nobody checked that it"
            " is the run's; require_fingerprints in gate.yaml makes that a refusal"
        )
    elif run.tokenizer is None and run.endpoint.tokenizer_fingerprint is None:
        notes.append("the run knows no tokenizer, so nobody checked that it is the forecast's")
    if forecast.log.model is None:
        notes.append("the forecast does not say for which model it is")
    if run.capacity_blocks is None:
        notes.append("the run does not know its cache's size, so nobody checked the forecast's")
    if (run.answered, run.split.prompt_tokens) == (
        forecast.log.requests,
        forecast.log.prompt_tokens,
    ):
        notes.append(
            "the forecast's log has exactly this run's requests and tokens: right where production's"
            " own log was replayed; a forecast made from the run itself would prove nothing"
        )
    if run.status == "ok" and is_shorter(run, forecast):
        notes.append(
            f"the run has {counted(run.split.sessions, 'session')}, the forecast is for"
            f" {forecast.sessions or 0:,.0f}: a colder cache may hide that staging shares more, and a"
            " cache that is not full yet that it evicts less; a forecast with --horizon compares like"
            " with like"
        )
    notes += _too_short(run, requests)
    found = run.split
    lost = unexplained_note(found.miss_unexplained, found.prompt_tokens, found.miss_unexplained_why)
    if lost is not None:
        notes.append(f"miss_unexplained: {lost}")
    notes.append(_scenario(forecast))
    if loose := loosened(policy.thresholds):
        notes.append(f"{policy.source} tolerates more than loadkit does: {', '.join(loose)}")
    if policy.slo and requests is None:
        notes.append("objectives were not judged: they need a run folder")
    return notes


def _too_short(run: Measured, requests: Requests | None) -> list[str]:
    """A hybrid model's blocks may be larger than every prompt."""
    if requests is None or run.block_size is None:
        return []
    lengths = requests.number["prompt_tokens"][requests.is_ok]
    longest = 0 if np.isnan(lengths).all() else int(np.nanmax(lengths))
    if not 0 < longest <= run.block_size:
        return []
    return [
        f"no prompt reaches {run.block_size + 1:,} tokens, the shortest that can hit in the server's"
        f" blocks of {run.block_size:,} (the longest has {longest:,}): nothing that was sent can hit"
    ]


def _scenario(forecast: Expected) -> str:
    """What production was described as: a forecast is only as good as that."""
    asked, log = forecast.scenario, forecast.log
    cache = asked.capacity_blocks
    parts = [
        f"{asked.traffic:g}x the traffic of a log of {counted(log.requests, 'request')} in"
        f" {counted(log.sessions, 'session')}",
        "an unlimited cache" if cache is None else f"a cache of {cache:,} blocks",
        f"{asked.replicas} replicas, {asked.routing} routing" if asked.replicas > 1 else "",
        f"blocks that expire after {asked.ttl_s:g} s" if asked.ttl_s is not None else "",
        f"{asked.horizon_s:g} s from a cold start" if asked.horizon_s is not None else "",
    ]
    return f"the forecast is for {'; '.join(part for part in parts if part)}"


def _baseline(old: Run | None, changed: tuple[Change, ...]) -> dict[str, Any] | None:
    if old is None:
        return None
    return {"run": old.name, "changes": msgspec.to_builtins(changed)}
