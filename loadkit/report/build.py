"""Run folders, forecast and verdict -> the report's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from loadkit.core.trace import FloatArray
from loadkit.gate.inputs import Expected, Measured, check_schema, checked
from loadkit.gate.inputs import read_run as gate_read_run
from loadkit.gate.policy import Policy, policy_of
from loadkit.gate.rates import hit_rate, organic_rate
from loadkit.gate.requests import Requests, read_requests
from loadkit.report import shown
from loadkit.report.fit import Rate, fit
from loadkit.report.model import CAUSES, MISSES, PARTS, Curve, Facts, Report, Side, Waits
from loadkit.report.objectives import objectives
from loadkit.report.sent import sent
from loadkit.report.shown import fitting
from loadkit.report.timeline import timeline
from loadkit.report.words import percent, points

STAGING, PRODUCTION, EXPECTED = "Staging", "Production-like run", "Expected in production"
_MAX_ECDF_POINTS = 200


def build(
    staging: Path,
    *,
    expected: dict[str, Any] | None = None,
    production: Path | None = None,
    gate: dict[str, Any] | None = None,
    curves: dict[str, Any] | None = None,
    policy: Policy | None = None,
    show_text: bool = False,
) -> Report:
    """Read the run folders and put the report together.

    curves: {"staging": [...], "production": [...]} points to show in place of those in the run
    folders and the forecast. policy: objectives to show; None: the profile's. show_text: quote a
    few words of prompts. InputError for a folder that is no run folder.
    """
    if expected is not None:
        checked(expected, Expected, "--expected")
        fitting(expected, shown.Forecast, "--expected")
    if gate is not None:
        check_schema(gate, "loadkit.gate/1", "--gate")
        fitting(gate, shown.Gate, "--gate")
    folders = {STAGING: staging} | ({PRODUCTION: production} if production else {})
    runs = {label: read_run(folder) for label, folder in folders.items()}
    requests = {label: read_requests(folder) for label, folder in folders.items()}
    policies = {label: policy or policy_of(run) for label, run in runs.items()}
    sides = [
        measured_side(label, run, requests[label], policies[label]) for label, run in runs.items()
    ]
    if expected is not None:
        sides.append(expected_side(expected))
    limits = (objectives(label, requests[label], policies[label]) for label in runs)
    return Report(
        title=_title(runs[STAGING]),
        headline=headline(sides, runs[STAGING], gate),
        sides=tuple(sides),
        curves=tuple(_curves(runs, expected, curves or {})),
        waits=tuple(_waits(label, requests[label], run) for label, run in runs.items()),
        facts=tuple(Facts(label, run) for label, run in runs.items()),
        gate=gate,
        expected=expected,
        times=tuple(timeline(label, found) for label, found in requests.items()),
        fits=tuple(
            fit(label, found, _asked(label, sides), closed=runs[label]["loop"] == "closed")
            for label, found in requests.items()
        ),
        sent=tuple(
            sent(label, folders[label], run, show_text=show_text) for label, run in runs.items()
        ),
        objectives=tuple(found for found in limits if found is not None),
    )


def _asked(label: str, sides: list[Side]) -> Rate | None:
    """The rate whose TTFT is asked of a run: the forecast's if it can be relied on, else that of
    the other run; None if there is neither."""
    for side in reversed(sides):
        if side.label != label and side.hit_rate is not None and side.conclusive:
            return Rate(side.label, side.hit_rate, side.low, side.high)
    return None


def read_run(folder: Path) -> dict[str, Any]:
    """run.json of a run folder. InputError if it is not there, of another version, or not what it
    should be: a rate above 1, a word for a number."""
    run = gate_read_run(folder)
    checked(run, Measured, folder / "run.json")
    fitting(run, shown.Run, folder / "run.json")
    return run


def measured_side(
    label: str,
    run: dict[str, Any],
    requests: Requests | None = None,
    policy: Policy | None = None,
) -> Side:
    """Intervals by sessions from the requests; without them what run.json states."""
    split, limits = run["split"], (policy or Policy()).thresholds
    rate, half = split["hit_rate"], split.get("hit_rate_half_width")
    counted = hit_rate(requests, limits)
    half = counted.half_width if counted else half
    known = rate is not None and half is not None
    organic = organic_rate(requests, limits)
    ends = organic.within(0, 1) if organic else None
    return Side(
        label=label,
        measured=True,
        basis=f"{run['requests']['ok']:,} answered requests in {split.get('sessions', 0):,} sessions",
        hit_rate=rate,
        low=max(0.0, rate - half) if known else None,
        high=min(1.0, rate + half) if known else None,
        parts={part: split[f"{part}_rate"] for part in PARTS},
        organic_hit_rate=split["organic_hit_rate"],
        organic_low=ends[0] if ends else None,
        organic_high=ends[1] if ends else None,
        misses=_misses({part: split.get(f"{part}_rate") for part in MISSES}),
        caching_off=split.get("miss_unexplained_why") == "caching_off",
    )


def expected_side(expected: dict[str, Any]) -> Side:
    rate, split = expected.get("hit_rate") or {}, expected.get("split") or {}
    organic, log = expected.get("organic_hit_rate"), expected.get("log") or {}
    organic = organic if isinstance(organic, dict) else {"estimate": organic}
    requests = log.get("requests")
    conclusive = expected.get("status") == "ok"
    basis = "forecast" if conclusive else "inconclusive forecast"
    return Side(
        label=EXPECTED,
        measured=False,
        basis=basis if requests is None else f"{basis} from a log of {requests:,} requests",
        hit_rate=rate.get("estimate"),
        low=rate.get("low"),
        high=rate.get("high"),
        parts={part: split.get(part) for part in PARTS},
        organic_hit_rate=organic.get("estimate"),
        conclusive=conclusive,
        organic_low=organic.get("low"),
        organic_high=organic.get("high"),
        misses=_misses({"miss_unexplained": 0.0} | {part: split.get(part) for part in MISSES[:2]}),
    )


def _misses(shares: dict[str, float | None]) -> dict[str, float]:
    """The shares by cause of miss; empty if one is not known."""
    known = {part: share for part, share in shares.items() if share is not None}
    return known if len(known) == len(shares) else {}


def headline(sides: list[Side], run: dict[str, Any], gate: dict[str, Any] | None = None) -> str:
    """The one sentence to remember. `run`: run.json of staging.

    A run that is not valid says so first and is compared with nothing; nor is a forecast that is
    inconclusive or that the gate refused to compare with.
    """
    if run["status"] != "ok":
        said = f"; do not rely on it: {_shown(sides[0])}" if run["requests"]["ok"] else ""
        return _invalid(run["requests"]) + said
    refused = {reason["code"] for reason in (gate or {}).get("reasons", [])} & {"forecast_refused"}
    others = [side for side in sides[1:] if side.measured or (side.conclusive and not refused)]
    return _shown(sides[0]) + _beside(sides[0], others)


def _invalid(counts: dict[str, int]) -> str:
    missing = counts["scheduled"] - counts["ok"]
    if not counts["ok"]:
        return f"Nothing was measured, none of {missing:,} requests was answered"
    if not missing:
        return "This run is not valid"
    return (
        f"This run is not valid, {missing:,} of {counts['scheduled']:,} requests were not answered"
    )


def _shown(staging: Side) -> str:
    if staging.hit_rate is None:
        return "Staging shows no hit rate: its server reported no cached tokens that can be split"
    text = f"Staging shows a {percent(staging.hit_rate, 0)} hit rate"
    return text + (f", {points(staging.replay)} of it replays" if staging.replay else "")


def _beside(staging: Side, others: list[Side]) -> str:
    """The last side with a rate, to be put after staging's; empty if there is nothing to compare."""
    for side in reversed(others):
        if side.hit_rate is not None and staging.hit_rate is not None:
            verb = "measured" if side.measured else "should expect"
            who = "a production-like run" if side.measured else "production"
            return f"; {who} {verb} {percent(side.hit_rate, 0)}"
    return ""


def _title(run: dict[str, Any]) -> str:
    name = run["profile"].get("name") if isinstance(run["profile"], dict) else None
    return f"{name or 'run'} against {run['endpoint']['model']}"


def _curves(
    runs: dict[str, dict[str, Any]], expected: dict[str, Any] | None, given: dict[str, Any]
) -> list[Curve]:
    found = [_curve("Staging: what was sent", given.get("staging"), runs[STAGING])]
    run = runs.get(PRODUCTION, runs[STAGING])
    if given.get("production") or (expected or {}).get("curve"):
        points_ = given.get("production") or (expected or {})["curve"]
        found.append(_curve("Production: the log of the forecast", points_, run))
    elif PRODUCTION in runs:
        found.append(_curve("Production-like run: what was sent", None, run))
    return [curve for curve in found if len(curve.points) > 1]


def _curve(label: str, given: list[dict[str, Any]] | None, run: dict[str, Any]) -> Curve:
    every = given or run.get("curve") or []
    finite = [p for p in every if p["capacity_tokens"] is not None and p["hit_rate"] is not None]
    blocks, size = run["capacity_blocks"], run["block_size"]
    capacity = None if blocks is None or size is None else blocks * size
    return Curve(label, tuple(sorted(finite, key=lambda p: p["capacity_tokens"])), capacity)


def _waits(label: str, requests: Requests, run: dict[str, Any]) -> Waits:
    waits, causes = requests.number["ttft_s"], requests.main_cause
    known = np.isfinite(waits)
    by_cause = {cause: np.sort(waits[(causes == cause) & known]) for cause in CAUSES}
    figures = run["latency"]["ttft_s_by_cause"] | {"all": run["latency"]["ttft_s"]}
    return Waits(label, figures, {cause: _ecdf(values) for cause, values in by_cause.items()})


def _ecdf(values: FloatArray) -> tuple[tuple[float, float], ...]:
    """Steps of the empirical distribution, thinned to 200 points where there are more."""
    n = len(values)
    ranks = np.unique(np.linspace(min(n, 1), n, min(n, _MAX_ECDF_POINTS)).round().astype(np.int64))
    return tuple((float(values[rank - 1]), float(rank / n)) for rank in ranks)
