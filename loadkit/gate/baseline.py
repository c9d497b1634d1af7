"""Two runs compared: the same sessions in both where the same plan was sent, else as two draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import exp
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from loadkit.core.errors import InputError
from loadkit.core.trace import FloatArray
from loadkit.gate.inputs import SAME_RATE, Measured, checked, read_run
from loadkit.gate.requests import Requests, read_requests
from loadkit.gate.sessions import Interval, apart, difference, ratio

# Pairs are used if nearly all that was sent is in both runs; else the halves are not alike.
MIN_PAIRED_SHARE = 0.9
Pick = Callable[[Requests], tuple[FloatArray, FloatArray]]


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder as the gate compares it."""

    name: str
    data: dict[str, Any]
    measured: Measured
    requests: Requests


class Change(msgspec.Struct, frozen=True):
    """One figure of two runs, new against old. value and interval: new - old for rates and shares,
    new / old for times (`is_ratio`). None: not known on one side. paired: by the same sessions."""

    figure: str
    is_ratio: bool
    new: float | None
    old: float | None
    value: float | None
    interval: tuple[float, float] | None
    paired: bool
    sessions: int


def open_run(folder: Path) -> Run:
    """Read a run folder. InputError if it is none or damaged."""
    data = read_run(folder)
    measured = checked(data, Measured, folder / "run.json")
    return Run(folder.name, data, measured, read_requests(folder))


def check_counts(run: Run, folder: Path) -> None:
    """InputError if run.json says something else than the rows of requests.parquet add up to."""
    for name, rows, said in _counts(run):
        if rows != said and (rows is None or said is None or abs(rows - said) > SAME_RATE):
            figures = " but ".join("unknown" if x is None else f"{x:,.6g}" for x in (rows, said))
            what = f"{name}: {figures} in run.json"
            remedy = "the run folder is damaged, or of two runs: run again, or restore it"
            raise InputError(what, where=folder / "requests.parquet", remedy=remedy)


def _counts(run: Run) -> Iterator[tuple[str, float | None, float | None]]:
    """Name, by the rows, by run.json."""
    rows, said, split = run.requests, run.measured, run.measured.split
    known = rows.is_split
    yield "answered requests", int(rows.is_ok.sum()), said.answered
    yield "requests that users left", rows.num_left, said.left
    yield "requests with a split", int(known.sum()), split.requests
    yield "sessions with a split", len(np.unique(rows.session[known])), split.sessions
    tokens = float(rows.number["prompt_tokens"][known].sum())
    for name in ("replay_same_session", "replay_cross_session", "continuation", "shared"):
        part = float(rows.number[name][known].sum()) / tokens if tokens else None
        yield f"{name} rate", part, getattr(split, f"{name}_rate")
    yield "hit rate", float(rows.hit[known].sum()) / tokens if tokens else None, split.hit_rate


def changes(new: Run, old: Run, confidence: float) -> tuple[Change, ...]:
    """Hit rate, organic hit rate, share without an answer, times (geometric means)."""
    paired = _paired(new.requests, old.requests) if _same_plan(new.data, old.data) else None
    return (
        _change("hit_rate", _hits, new, old, paired, confidence),
        _change("organic_hit_rate", _organic, new, old, paired, confidence),
        _change("failed_share", _failed, new, old, paired, confidence),
        *(
            _change(name, _logs(name), new, old, paired, confidence, is_ratio=True)
            for name in ("ttft_s", "tpot_s", "e2e_s")
        ),
    )


def differing(new: Mapping[str, Any], old: Mapping[str, Any], under: str = "") -> list[str]:
    """Dotted keys of two mappings whose values differ, in order."""
    found: list[str] = []
    for key in sorted({*new, *old}, key=str):
        name = f"{under}{key}"
        left, right = new.get(key), old.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found += differing(left, right, f"{name}.")
        elif left != right:
            found.append(name)
    return found


def _hits(requests: Requests) -> tuple[FloatArray, FloatArray]:
    prompts, rows = requests.number["prompt_tokens"], requests.is_split
    return requests.by_session(requests.hit, rows), requests.by_session(prompts, rows)


def _organic(requests: Requests) -> tuple[FloatArray, FloatArray]:
    prompts, rows = requests.number["prompt_tokens"], requests.is_organic
    return requests.by_session(requests.genuine, rows), requests.by_session(prompts, rows)


def _failed(requests: Requests) -> tuple[FloatArray, FloatArray]:
    failed = (~requests.is_ok).astype(np.float64)
    return requests.by_session(failed), requests.by_session(np.ones(len(failed)))


def _logs(name: str) -> Pick:
    """Sums of the logarithm and counts: their ratio is the logarithm of the geometric mean."""

    def pick(requests: Requests) -> tuple[FloatArray, FloatArray]:
        values = requests.number[name]
        rows = requests.is_ok & (values > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(values)
        return requests.by_session(logs, rows), requests.by_session(np.ones(len(values)), rows)

    return pick


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Positions of the common sessions in both runs; None: compared as two draws."""

    new: np.ndarray
    old: np.ndarray


def _same_plan(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Sessions of another seed or traffic have the same names, but other contents."""
    plans = []
    for data in (new, old):
        profile = data.get("profile")
        traffic = profile.get("traffic") if isinstance(profile, dict) else None
        plans.append((data.get("seed"), traffic))
    return bool(plans[0] == plans[1])


def _paired(new: Requests, old: Requests) -> _Pairs | None:
    """The common sessions, if they are nearly all of both and as many requests each."""
    common, left, right = np.intersect1d(new.names, old.names, return_indices=True)
    if len(common) < MIN_PAIRED_SHARE * max(len(new.names), len(old.names), 2):
        return None
    sizes = [np.bincount(one.session, minlength=len(one.names)) for one in (new, old)]
    alike = sizes[0][left] == sizes[1][right]
    return _Pairs(left, right) if alike.mean() >= MIN_PAIRED_SHARE else None


def _change(
    figure: str,
    pick: Pick,
    new: Run,
    old: Run,
    paired: _Pairs | None,
    confidence: float,
    *,
    is_ratio: bool = False,
) -> Change:
    sides = [pick(run.requests) for run in (new, old)]
    means = [ratio(*_some(side), confidence) for side in sides]
    found = _difference(sides, means, paired, confidence)
    shown = exp if is_ratio else float
    values = [None if mean is None else shown(mean.value) for mean in means]
    ends = None if found is None or found.low is None or found.high is None else (
        shown(found.low), shown(found.high)
    )  # fmt: skip
    return Change(
        figure,
        is_ratio,
        values[0],
        values[1],
        None if found is None else shown(found.value),
        ends,
        paired is not None,
        0 if found is None else found.sessions,
    )


def _some(side: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Only the sessions that have something to count."""
    part, whole = side
    return part[whole > 0], whole[whole > 0]


def _difference(
    sides: list[tuple[FloatArray, FloatArray]],
    means: list[Interval | None],
    paired: _Pairs | None,
    confidence: float,
) -> Interval | None:
    if means[0] is None or means[1] is None:
        return None
    if paired is None:
        return apart(means[0], means[1], confidence)
    new = (sides[0][0][paired.new], sides[0][1][paired.new])
    old = (sides[1][0][paired.old], sides[1][1][paired.old])
    both = (new[1] > 0) & (old[1] > 0)
    return difference((new[0][both], new[1][both]), (old[0][both], old[1][both]), confidence)
