"""Is a run worse than its baseline by more than the tolerance, and more than chance explains?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loadkit.gate.baseline import Change, Run, differing
from loadkit.gate.verdict import FAIL, INCONCLUSIVE, Reason
from loadkit.thresholds import Thresholds

_SAME = "take a baseline of the same profile, model, tokenizer and block size"
# What of a profile makes two runs the same traffic; the seed may differ.
_TRAFFIC = ("name", "traffic", "arrivals", "request")


def regressions(
    new: Run, old: Run, found: tuple[Change, ...], limits: Thresholds
) -> Iterator[Reason]:
    """FAIL only if the whole interval is beyond the tolerance. A baseline that cannot be compared
    is INCONCLUSIVE: it was asked for, and nobody can answer."""
    if why := _not_comparable(new, old, limits):
        yield Reason("regression", why, None, None, _SAME, None, INCONCLUSIVE)
        return
    by_name = {change.figure: change for change in found}
    for figure, tolerated, sign in (
        ("hit_rate", -limits.regression.hit_rate_drop, -1),
        ("failed_share", limits.regression.failed_share, 1),
        ("ttft_s", limits.regression.ttft_ratio, 1),
        ("e2e_s", limits.regression.e2e_ratio, 1),
    ):
        change = by_name[figure]
        if change.old is not None and change.interval is None:
            what = f"{_NAMES[figure]} of this run cannot be compared with the baseline's"
            yield Reason("regression", what, change.new, change.old, _SAME, None, INCONCLUSIVE)
        elif reason := _worse(change, tolerated, sign):
            yield reason


def _not_comparable(new: Run, old: Run, limits: Thresholds) -> str | None:
    left, right = new.measured, old.measured
    if right.status != "ok":
        return "the baseline run is not valid"
    if new.data == old.data:
        return "the baseline is this very run"
    pairs = (
        ("model", left.endpoint.model, right.endpoint.model),
        ("block size", left.block_size, right.block_size),
        ("tokenizer", _fingerprint(new), _fingerprint(old)),
    )
    for name, ours, theirs in pairs:
        if ours != theirs and None not in (ours, theirs):
            return f"the baseline has {name} {theirs}, this run {ours}"
    keys = differing(_traffic(new), _traffic(old))
    if keys := [key for key in keys if not key.endswith("source")]:
        return f"the baseline's profile has another {', '.join(keys[:4])}"
    if min(left.split.sessions, right.split.sessions) < limits.min_sessions:
        return f"fewer than {limits.min_sessions} sessions to compare"
    return None


def _traffic(run: Run) -> dict[str, Any]:
    profile = run.data.get("profile")
    return {key: profile.get(key) for key in _TRAFFIC} if isinstance(profile, dict) else {}


def _fingerprint(run: Run) -> str | None:
    return run.measured.tokenizer.fingerprint if run.measured.tokenizer else None


def _worse(change: Change, tolerated: float, sign: int) -> Reason | None:
    """sign 1: more is worse, -1: less is. The end of the interval nearest to no change decides."""
    if change.interval is None or change.value is None:
        return None
    nearest = change.interval[0] if sign > 0 else change.interval[1]
    if sign * (nearest - tolerated) <= 0:
        return None
    return Reason(
        "regression",
        f"{_NAMES[change.figure]} {_words(change)}, tolerated is {_size(change, tolerated)}"
        f" ({'the same' if change.paired else 'other'} sessions in both runs)",
        change.new,
        change.old,
        "find the change between the two runs: loadkit compare shows their settings",
        change.interval,
        FAIL,
    )


_NAMES = {
    "hit_rate": "the hit rate",
    "failed_share": "the share of requests without an answer",
    "ttft_s": "time to first token (geometric mean)",
    "e2e_s": "end-to-end time (geometric mean)",
}


def _words(change: Change) -> str:
    assert change.interval is not None
    low, high = (_size(change, end) for end in change.interval)
    return f"changed by {_size(change, change.value or 0.0)} against the baseline ({low} to {high})"


def _size(change: Change, value: float) -> str:
    return f"{100 * (value - 1):+.1f}%" if change.is_ratio else f"{100 * value:+.1f} points"
