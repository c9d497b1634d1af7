"""`make validate`: forecasts of public traces and synthetic worlds against the truth, as a table.

A production trace is hidden but for a share of its sessions, requests or tenants, or for the first part
of its window; the forecast from the rest is compared with the exact rates of the whole. All figures are points of
the token-weighted hit rate, over four capacities: 3, 10, 25 and 200% of production's distinct
blocks. Public traces are looked for in $LOADKIT_DATA and left out, with a note, when absent.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from fresh_worlds import FRESH, make_fresh_world
from public_data import CONVERSATION, DATA, SYNTHETIC, WEKA, missing
from trials import Trial, prefix_trial, request_trial, session_trial, tenant_trial
from worlds import DESIGN, REVISION, UNSEEN, make_world

from loadkit.core.trace import Trace
from loadkit.traces import read_trace

SESSIONS = (150, 350, 700, 1400, 2800)
TORN = (350, 1000)  # as many sessions' worth of requests drawn one by one
TENANTS = (120, 250)
TENANT_WORLDS = ("tenant_blocks", "helpdesk")
PREFIXES = (0.12, 0.25, 0.5)
SEEDS = 2


@dataclass(frozen=True)
class Case:
    """One row's worth of trials."""

    world: str
    used: str
    asked: str
    trials: list[Trial]


def cases(quick: bool) -> Iterator[Case]:
    """Every trace with every number of sessions and requests, and every part of its window."""
    for source in sources(quick):
        drawn = [source.draw(seed) for seed in range(1 if quick else SEEDS)]
        yield from _samples(source, drawn, SESSIONS, "sessions", session_trial)
        yield from _samples(source, drawn, TORN, "sessions as torn requests", request_trial)
        for share in PREFIXES:
            whole = drawn if source.is_world else drawn[:1]
            tried = [prefix_trial(trace, share) for trace in whole]
            yield Case(source.name, source.used, f"first {share:.0%}", tried)
    yield from tenant_cases(quick)


def _samples(
    source: Source,
    drawn: list[Trace],
    counts: tuple[int, ...],
    unit: str,
    trial: Callable[[Trace, float, int], Trial],
) -> Iterator[Case]:
    for sessions in counts:
        if 100 <= sessions <= 0.6 * drawn[0].num_sessions:
            tried = [
                trial(trace, sessions / trace.num_sessions, 100 + seed)
                for seed, trace in enumerate(drawn)
            ]
            yield Case(source.name, source.used, f"{sessions} {unit}", tried)


def tenant_cases(quick: bool) -> Iterator[Case]:
    """Samples of tenants, forecast as that and, to see the difference, as samples of sessions."""
    for name in TENANT_WORLDS[: 1 if quick else 2]:
        draw = make_fresh_world if name in FRESH else make_world
        drawn = [draw(name, 2026 + seed, 6 if name in FRESH else 3) for seed in range(SEEDS)]
        for count in TENANTS:
            for unit in ("tenants", "sessions"):
                tried = [tenant_trial(trace, count, seed, unit) for seed, trace in enumerate(drawn)]
                used = "design" if unit == "tenants" else "control"
                yield Case(name, used, f"{count} tenants as {unit}", tried)


@dataclass(frozen=True)
class Source:
    """A world, drawn anew for each seed, or a public trace, which is what it is."""

    name: str
    used: str
    is_world: bool
    draw: Callable[[int], Trace]


def sources(quick: bool) -> Iterator[Source]:
    """Public traces first. Their sessions are taken as read or as inferred once on the whole trace,
    so that a sample is one of sessions, and no penalty for inference applies."""
    for name in (CONVERSATION, SYNTHETIC, WEKA):
        if missing(name):
            print(f"{name} is not in {DATA}: left out", file=sys.stderr)
            continue
        trace = replace(read_trace([DATA / name]), sessions_inferred=False)
        yield Source(name.split(".")[0], "design", False, lambda _, trace=trace: trace)
    scale = 0.3 if quick else 1.0
    for group, used in (
        (DESIGN, "design"), (REVISION, "revision"), (UNSEEN, "unseen"), (FRESH, "fresh"),
    ):  # fmt: skip
        for name in group:
            yield Source(name, used, True, partial(_draw, name, scale))


def _draw(name: str, scale: float, seed: int) -> Trace:
    draw = make_fresh_world if name in FRESH else make_world
    return draw(name, 2026 + seed, scale)


def row(case: Case) -> list[str]:
    answered = [trial for trial in case.trials if trial.refused is None]
    head = [case.world, case.used, case.asked, f"{len(answered)}/{len(case.trials)}"]
    if not answered:
        return [*head, *["-"] * 7]
    return head + figures(answered)


def figures(trials: list[Trial]) -> list[str]:
    """MAE, the naive answers' MAE, mean half width, coverage, calls of ok, and wrong ones."""
    gather = lambda name: np.concatenate([getattr(t, name) for t in trials])  # noqa: E731
    covered, half = gather("covered"), gather("half")
    ok = half <= 0.05
    wrong = f"{gather('wrongly_ok').sum()}/{ok.sum()}"
    return [
        points(np.abs(gather("error")).mean()),
        points(np.abs(gather("own_rate")).mean()),
        points(np.abs(gather("scaled")).mean()),
        points(half.mean()),
        f"{covered.mean():.2f}",
        f"{ok.mean():.2f}",
        wrong,
    ]


def points(rate: Any) -> str:
    return f"{100 * float(rate):.1f}"


HEAD = ["world", "used for", "log", "answered", "MAE", "own rate", "C x p or last third",
        "half width", "coverage", "called ok", "wrongly ok"]  # fmt: skip


KINDS = {
    "session samples": lambda asked: asked.endswith(" sessions") and "tenants" not in asked,
    "torn requests": lambda asked: "torn" in asked,
    "time prefixes": lambda asked: "first" in asked,
    "tenants": lambda asked: "tenants as tenants" in asked,
    "tenants as sessions": lambda asked: "tenants as sessions" in asked,
}


def totals(found: list[Case]) -> Iterator[list[str]]:
    """One row a use and way of asking, and how often ok was said wrongly."""
    for used in ("design", "revision", "unseen", "fresh", "control"):
        for label, belongs in KINDS.items():
            chosen = [c for c in found if c.used == used and belongs(c.asked)]
            trials = [t for case in chosen for t in case.trials]
            answered = [t for t in trials if t.refused is None]
            if answered:
                head = ["all", used, label, f"{len(answered)}/{len(trials)}"]
                yield head + figures(answered)


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small worlds, one seed")
    quick, started, found = parser.parse_args().quick, time.monotonic(), []
    print(line(HEAD))
    print(line(["---"] * len(HEAD)))
    for case in cases(quick):
        found.append(case)
        print(line(row(case)), flush=True)
    for cells in totals(found):
        print(line(cells))
    print(f"{len(found)} cases in {time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
