"""How the demo looks in a terminal: stages with a bar on stderr, then one table."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from loadkit.demo import DemoResult

PARTS = (
    ("replay, other sessions", "replay_cross_session"),
    ("replay, same session", "replay_same_session"),
    ("continuation", "continuation"),
    ("shared", "shared"),
    ("miss", "miss"),
)
WITNESSES = (
    ("usage fields of the answers", "usage"),
    ("server's Prometheus counters", "prometheus"),
    ("predicted from what was sent", "prediction"),
)


class Display:
    """Implements loadkit.demo.Show with rich."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            TimeElapsedColumn(),
            console=self.console,
        )
        self._task: Any = None
        self._is_plain = not self.console.is_terminal

    def __enter__(self) -> Display:
        if not self._is_plain:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._finish()
        if not self._is_plain:  # else it would leave an empty line
            self._progress.stop()

    def stage(self, text: str) -> None:
        """A line that lives in a terminal, one plain line elsewhere."""
        if self._is_plain:
            print(f"loadkit: {text}", file=sys.stderr)
            return
        self._finish()
        self._task = self._progress.add_task(text, total=None, note="")

    def detail(self, text: str) -> None:
        if not self._is_plain:
            self._progress.update(self._task, note=text[:60])

    def progress(self, done: int, total: int) -> None:
        if not self._is_plain:
            self._progress.update(self._task, completed=done, total=total, note=f"{done}/{total}")

    def _finish(self) -> None:
        if self._task is None:
            return
        task = self._progress.tasks[self._task]
        total = task.total or 1
        note = task.fields["note"] if task.total else ""
        self._progress.update(self._task, total=total, completed=total, note=note)

    def summary(self, result: DemoResult) -> None:
        """The table, the agreement of the three counts, and the verdict; on stdout."""
        out = Console(highlight=False)
        out.print()
        out.print(_split_table(result))
        out.print("expected: counted by the analyzer from the production log alone", style="dim")
        out.print(
            "TTFT p99: of so few requests the slowest one; the first ones meet an empty cache\n",
            style="dim",
        )
        out.print(_agreement_table(result))
        for reason in result.gate["reasons"]:
            out.print(
                f"{result.gate['verdict']}  {reason['code']}: {reason['message']}", markup=False
            )
        for failure in result.failures:
            out.print(f"The demonstration did not work: {failure}", style="red", markup=False)
        out.print(f"\nReport: {result.folder / 'report.html'}", markup=False)
        tokenizer = result.production["tokenizer"]
        if tokenizer is not None:  # a path is to be copied: no line breaks of ours in it
            out.print(f"tokenizer: {tokenizer['name']}", markup=False, soft_wrap=True)


def _split_table(result: DemoResult) -> Table:
    table = Table(
        title="Prompt tokens served from the prefix cache, by cause", title_justify="left"
    )
    for column, side in (("", "left"), ("staging", "right"), ("production-like", "right")):
        table.add_column(column, justify=side)  # type: ignore[arg-type]
    table.add_column("expected", justify="right")
    staging, production = result.staging["split"], result.production["split"]
    expected = result.expected["split"]
    table.add_row(
        "hit rate",
        *(_percent(side["hit_rate"]) for side in (staging, production)),
        _percent(result.expected["hit_rate"]["estimate"]),
        style="bold",
        end_section=True,
    )
    for label, part in PARTS:
        sides = (staging.get(f"{part}_rate"), production.get(f"{part}_rate"), expected.get(part))
        table.add_row(label, *(_percent(side) for side in sides))
    table.add_section()
    for label, key in (("TTFT p50", "p50"), ("TTFT p99", "p99")):
        times = [run["latency"]["ttft_s"][key] for run in (result.staging, result.production)]
        table.add_row(label, *(_milliseconds(time) for time in times), "")
    return table


def _agreement_table(result: DemoResult) -> Table:
    table = Table(title="Cached tokens, counted three ways", title_justify="left")
    table.add_column("")
    table.add_column("staging", justify="right")
    table.add_column("production-like", justify="right")
    sides = [run["reconciliation"] for run in (result.staging, result.production)]
    for label, witness in WITNESSES:
        table.add_row(label, *(_count(side[witness]["cached_tokens"]) for side in sides))
    table.add_row(
        "lost to re-tokenised replies", *(_count(side["retokenised_tokens"]) for side in sides)
    )
    table.add_row("agree", *("yes" if side["agrees"] else "NO" for side in sides), style="bold")
    return table


def _percent(rate: float | None) -> str:
    return "unknown" if rate is None else f"{100 * rate:.1f}%"


def _milliseconds(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{1000 * seconds:,.0f} ms"


def _count(tokens: float | None) -> str:
    return "unknown" if tokens is None else f"{tokens:,.0f}"
