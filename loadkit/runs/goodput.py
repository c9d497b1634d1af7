"""Goodput: requests that met every limit of the profile's `slo`; over a staircase of rates, the knee.

A request counts when the server had a chance to answer it: not those never sent, nor those left or
stopped on our side. One without an answer meets nothing; a time that was not measured was not met,
but for TPOT, which an answer of one token does not have.

    goodput   requests that met every limit / seconds from the first intended send to the last end
    share     requests that met every limit / requests that count
    knee      the highest stage whose share is at least slo.share, as are those of all lower rates
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadkit.runs.context import RunContext, Stage
from loadkit.runs.record import Record

LIMITS = ("ttft_s", "tpot_s", "e2e_s")
_NOT_THE_SERVERS = ("not_sent", "cancelled")


def goodput(records: Sequence[Record], context: RunContext) -> dict[str, Any] | None:
    """The `goodput` section of run.json; None for a profile without `slo`."""
    slo = context.profile.get("slo")
    if not slo:
        return None
    by_rate = sorted(stages(records, context), key=lambda stage: float(stage["rate_per_s"]))
    return {
        "slo": slo,
        **_figures(records, slo, _span_s(records)),
        "knee_per_s": _knee(by_rate, float(slo["share"])),
    }


def stages(records: Sequence[Record], context: RunContext) -> list[dict[str, Any]]:
    """Figures of each stage. A session, all of its turns, is of the stage in which it started; rates
    are session starts a second, goodput is requests a second of the stage's length."""
    started: dict[str, float] = {}
    for record in records:
        at = started.get(record.session, record.intended_s)
        started[record.session] = min(at, record.intended_s)
    return [
        _stage(
            stage,
            [r for r in records if stage.start_s <= started[r.session] < stage.end_s],
            context.profile.get("slo"),
        )
        for stage in context.stages
    ]


def _stage(stage: Stage, records: Sequence[Record], slo: dict[str, Any] | None) -> dict[str, Any]:
    counts = {
        "start_s": stage.start_s,
        "end_s": stage.end_s,
        "rate_per_s": stage.rate_per_s,
        "requests": len(records),
        "ok": sum(record.outcome == "ok" for record in records),
    }
    return counts | (_figures(records, slo, stage.end_s - stage.start_s) if slo else {})


def _figures(records: Sequence[Record], slo: dict[str, Any], span_s: float) -> dict[str, Any]:
    counted = [record for record in records if record.outcome not in _NOT_THE_SERVERS]
    met = sum(meets(record, slo) for record in counted)
    return {
        "requests_judged": len(counted),
        "requests_met": met,
        "goodput_per_s": met / span_s if span_s > 0 else None,
        "goodput_share": met / len(counted) if counted else None,
    }


def meets(record: Record, slo: dict[str, Any]) -> bool:
    """Whether a request met every limit that is set."""
    if record.outcome != "ok":
        return False
    for name in LIMITS:
        limit, value = slo.get(name), getattr(record, name)
        if limit is None or (value is None and name == "tpot_s"):
            continue
        if value is None or value > limit:
            return False
    return True


def _knee(by_rate: Sequence[dict[str, Any]], share: float) -> float | None:
    knee = None
    for stage in by_rate:
        if stage["goodput_share"] is None or stage["goodput_share"] < share:
            break
        knee = float(stage["rate_per_s"])
    return knee


def _span_s(records: Sequence[Record]) -> float:
    ends = [r.completed_s for r in records if r.completed_s is not None]
    return max(ends) - min(r.intended_s for r in records) if ends else 0.0
