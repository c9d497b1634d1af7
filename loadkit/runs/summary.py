"""Counts of a run: outcomes, totals, schedule delay, and whether its figures may be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from loadkit.runs.client_load import MAX_STALL_P99_S, judged_stall_p99_s
from loadkit.runs.context import RunContext
from loadkit.runs.latency import summarize
from loadkit.runs.record import OUTCOMES, Record
from loadkit.runs.splits import has_usable_usage

# Later than this at p99, an open loop no longer offers the load it was asked for. A loose limit: a
# cache's hit rate bears some delay. Latency figures deserve a look at schedule_delay_s itself.
MAX_SCHEDULE_DELAY_P99_S = 1.0
# A rate moves by at most the share of the plan that is missing, and what is missing (refused, cut,
# late) is not missing at random: more than a tenth, and the rest does not stand for the plan.
MIN_ANSWERED_SHARE = 0.9
# Different errors that run.json names; requests.parquet has them all.
MAX_ERRORS = 8


def outcome_counts(records: Sequence[Record], scheduled: int) -> dict[str, int]:
    """`scheduled` and each outcome; they always add up.

    A planned request without a record (its worker died, the run ended early) is not_sent. Should
    there be more records than planned, `scheduled` says how many there are.
    """
    counts = Counter(str(record.outcome) for record in records)
    counts["not_sent"] += max(0, scheduled - len(records))
    return {"scheduled": max(scheduled, len(records)), **{name: counts[name] for name in OUTCOMES}}


def phases(records: Sequence[Record], context: RunContext) -> dict[str, dict[str, int]]:
    """Outcomes of the phases around the measurement: sent and kept, in no other figure."""
    found: dict[str, list[Record]] = {phase: [] for phase in context.scheduled_phases}
    for record in records:
        if record.phase != "measured":
            found.setdefault(record.phase, []).append(record)
    return {
        phase: outcome_counts(ones, context.scheduled_phases.get(phase, 0))
        for phase, ones in found.items()
    }


def is_unsent(counts: dict[str, int]) -> bool:
    """Whether not one request of the plan was sent."""
    return counts["scheduled"] == counts["not_sent"]


def common_errors(records: Sequence[Record]) -> list[dict[str, Any]]:
    """What went wrong most often: status (None: no answer), error and how many requests.

    What was not sent comes last: mostly it is the rest of a session that something else ended.
    """
    found = Counter(
        (record.outcome, record.status, record.error)
        for record in records
        if record.outcome != "ok" and record.error and not record.left
    )
    return [
        {"outcome": outcome, "status": status, "error": error, "requests": count}
        for (outcome, status, error), count in sorted(
            found.items(), key=lambda item: (item[0][0] == "not_sent", -item[1])
        )[:MAX_ERRORS]
    ]


def totals(answered: Sequence[Record]) -> dict[str, int | None]:
    """Token sums over answered requests as far as the server reported them; None: never did."""
    usable = [record for record in answered if has_usable_usage(record)]
    impossible = [r for r in answered if r.cached_tokens is not None and not has_usable_usage(r)]
    return {
        "prompt_tokens": _sum(answered, "prompt_tokens"),
        "output_tokens": _sum(answered, "output_tokens"),
        "cached_tokens": _sum(usable, "cached_tokens"),
        "requests_without_cached_tokens": len(answered) - len(usable),
        "requests_with_impossible_usage": len(impossible),
    }


def _sum(records: Sequence[Record], field: str) -> int | None:
    known = [value for record in records if (value := getattr(record, field)) is not None]
    return sum(known) if known else None


def schedule_delay(records: Sequence[Record]) -> dict[str, Any]:
    """n, p50, p99 and max of actual minus intended send, over requests that were sent."""
    figures = summarize(record.schedule_delay_s for record in records)
    return {name: figures[name] for name in ("n", "p50", "p99", "max")}


def unanswered(
    counts: Mapping[str, int], errors: Sequence[Mapping[str, Any]], left: int = 0
) -> str | None:
    """`3 of 13 requests were not answered, most often: timeout: ...`; None if all were, but for
    those `left` by their users as planned."""
    missing = counts["scheduled"] - counts["ok"] - left
    if not missing:
        return None
    often = f", most often: {error_words(errors[0])}" if errors else ""
    return f"{missing} of {counts['scheduled']} requests were not answered{often}"


def error_words(error: Mapping[str, Any]) -> str:
    """One of `common_errors` in words: outcome, status if there was one, message."""
    status = "" if error["status"] is None else f" {error['status']}"
    return f"{error['outcome']}{status}: {error['error']}"


def invalid_reasons(
    counts: dict[str, int],
    left: int,
    errors: Sequence[Mapping[str, Any]],
    delay: dict[str, Any],
    torn_bytes: int,
    context: RunContext,
) -> list[dict[str, str]]:
    """Why the figures of this run must not be used; empty for a sound run."""
    stall = judged_stall_p99_s(context.stalls)
    checks = [
        (
            counts["ok"] == 0,
            "too_few_samples",
            "no request was " + ("sent" if is_unsent(counts) else "answered"),
        ),
        (
            context.missing_workers > 0,
            "missing_workers",
            f"{context.missing_workers} of {context.processes} load workers died or never reported",
        ),
        (
            context.interrupted,
            "interrupted",
            "the run was interrupted before its plan was done",
        ),
        (
            torn_bytes > 0,
            "torn_journal",
            f"{torn_bytes} bytes of journals are damaged or cut short: their records are lost",
        ),
        (
            context.loop == "open" and (delay["p99"] or 0.0) > MAX_SCHEDULE_DELAY_P99_S,
            "invalid_timing",
            f"requests were sent late: p99 of the schedule delay is {delay['p99'] or 0.0:.2f} s,"
            f" the limit {MAX_SCHEDULE_DELAY_P99_S:.0f} s; use more processes or less traffic",
        ),
        (
            stall > MAX_STALL_P99_S,
            "invalid_timing",
            f"a worker's loop was held up for {stall:.2f} s at p99, the limit is"
            f" {MAX_STALL_P99_S:.0f} s; use more processes, less traffic or a quieter machine",
        ),
    ]
    found = [{"code": code, "message": message} for holds, code, message in checks if holds]
    if not found and counts["ok"] + left < MIN_ANSWERED_SHARE * counts["scheduled"]:
        found = [{"code": "unanswered", "message": unanswered(counts, errors, left) or ""}]
    return found


def public_url(url: str) -> str:
    """The URL without user, password, query or fragment: those may hold secrets."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
