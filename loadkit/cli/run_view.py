"""What `loadkit run` shows: progress on stderr, a short summary on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from loadkit.cli import log_input
from loadkit.cli.rate_tables import console, percent, split_table, table
from loadkit.core.errors import CannotMeasure
from loadkit.core.split import CAUSES
from loadkit.core.units import plural
from loadkit.report.words import milliseconds
from loadkit.runs.record import OUTCOMES
from loadkit.runs.summary import error_words, unanswered

PLAIN_INTERVAL_S = 15.0


@contextmanager
def progress(name: str, scheduled: int) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; yields the function to call with (done, scheduled)."""
    if not sys.stderr.isatty():
        yield PlainProgress(name)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    stderr = Console(stderr=True, markup=False)
    with Progress(*columns, TimeElapsedColumn(), console=stderr) as bar:
        task = bar.add_task(name, total=scheduled)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class PlainProgress:
    """Without a terminal: a line when requests begin to be sent, then one now and then."""

    def __init__(self, name: str, interval_s: float = PLAIN_INTERVAL_S):
        self._name, self._interval_s = name, interval_s
        self._due: float | None = None

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._due is None:
            print(f"loadkit: sending {plural(total, 'request')} of {self._name}", file=sys.stderr)
        elif now >= self._due:
            print(f"loadkit: {done} of {plural(total, 'request')} done", file=sys.stderr)
        else:
            return
        self._due = now + self._interval_s


def announce(host: str, port: int) -> None:
    """Where the web interface will be."""
    shown = f"[{host}]" if ":" in host else host
    print(f"loadkit: press start at http://{shown}:{port}, end with Ctrl-C", file=sys.stderr)


def show(run: dict[str, Any], folder: Path, *, as_json: bool) -> None:
    """Summary of run.json, or all of it as JSON."""
    if as_json:
        print(log_input.as_json(run))
        return
    screen = console()
    screen.print(f"{run['kind']} traffic at {run['endpoint']['url']}, {run['duration_s']:.1f} s")
    screen.print(_summary(run))
    if run["split"]["hit_rate"] is not None:
        rates = {cause: run["split"][f"{cause}_rate"] for cause in CAUSES}
        screen.print(split_table(rates, screen.width))
    for error in run["errors"]:
        screen.print(f"{error['requests']} x {error_words(error)}")
    screen.print(run["reconciliation"]["says"])
    for note in run["notes"]:
        screen.print(f"note: {note}")
    screen.print(f"run folder: {folder}")


def require_valid(run: dict[str, Any], folder: Path) -> None:
    """CannotMeasure (exit 3) when nothing was answered, or the run folder says it is not valid.

    A few requests without an answer are told on stderr; many make the run invalid.
    """
    if not run["requests"]["ok"]:
        first = f"; most often: {error_words(run['errors'][0])}" if run["errors"] else ""
        raise CannotMeasure(
            f"no request was answered: {_outcomes(run)}{first}",
            code="too_few_samples",
            remedy=f"the errors are in {folder / 'requests.parquet'}",
        )
    if run["status"] != "ok":
        reasons = "; ".join(_reason(reason) for reason in run["reasons"])
        raise CannotMeasure(f"the run is not valid: {reasons}", remedy=f"kept in {folder}")
    if missing := unanswered(run["requests"], run["errors"], run["left"]):
        print(f"loadkit: {missing}", file=sys.stderr)


def _reason(reason: Any) -> str:
    return str(reason.get("message", reason)) if isinstance(reason, dict) else str(reason)


def _summary(run: dict[str, Any]) -> Table:
    shown = table()
    shown.add_row("requests", f"{run['requests']['scheduled']} scheduled: {_outcomes(run)}")
    shown.add_row("hit rate", _hit_rate(run))
    shown.add_row("TTFT", _percentiles(run["latency"]["ttft_s"]))
    shown.add_row("end to end", _percentiles(run["latency"]["e2e_s"]))
    shown.add_row("schedule delay", _percentiles(run["schedule_delay_s"]))
    if run["goodput"]:
        shown.add_row("goodput", _goodput(run["goodput"], run["stages"]))
    return shown


def _goodput(found: dict[str, Any], stages: list[dict[str, Any]]) -> str:
    """Requests a second that met every limit, their share, and the knee of a staircase."""
    if found["goodput_per_s"] is None or found["goodput_share"] is None:
        return "n/a"
    said = f"{found['goodput_per_s']:.2f} requests/s met every limit ({found['goodput_share']:.1%})"
    if not stages:
        return said
    knee, share = found["knee_per_s"], found["slo"]["share"]
    if knee is None:
        return f"{said}; no stage had {share:.0%} of its requests within the limits"
    return f"{said}; knee at {knee:g} session starts/s ({share:.0%} within the limits)"


def _outcomes(run: dict[str, Any]) -> str:
    counts = run["requests"]
    named = [f"{counts[name]} {name}" for name in OUTCOMES if counts[name]]
    if run["left"]:
        named.append(f"{run['left']} of them left by their users as planned")
    return ", ".join(named)


def _hit_rate(run: dict[str, Any]) -> str:
    """Token-weighted: cached tokens that the server reported, or as predicted where its counters
    confirm that and answers say nothing / prompt tokens."""
    cached, prompt = run["totals"]["cached_tokens"], run["totals"]["prompt_tokens"]
    split = run["split"]
    if cached is None and split["source"] == "predicted":
        return (
            f"{percent(split['hit_rate'])} (token-weighted, {split['hit']:,} of"
            f" {split['prompt_tokens']:,} prompt tokens; predicted, and the server's counters agree)"
        )
    if cached is None or not prompt:
        return "the server reported no cached tokens" if run["requests"]["ok"] else "n/a"
    return f"{percent(cached / prompt)} (token-weighted, {cached:,} of {prompt:,} prompt tokens)"


def _percentiles(stats: dict[str, Any]) -> str:
    if not stats["n"]:
        return "n/a"
    return f"p50 {milliseconds(stats['p50'])}, p99 {milliseconds(stats['p99'])}"
