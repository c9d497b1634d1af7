"""What broke append-only, by tokens lost, each cause with its remedy and an example."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from loadkit.cli.rate_tables import count, percent

if TYPE_CHECKING:
    from loadkit.analysis.audit import AppendOnly, BrokenBy, Example

_SHOWN = 5
_CRUMB = 0.0005
_INDENT = 8


def show(out: Console, audit: AppendOnly) -> None:
    """Nothing for a log whose sessions have one turn each."""
    if audit.turn_pairs:
        _show_pairs(out, audit)
    # What sessions could share is estimated from text lengths, so that crumbs mean nothing.
    between = [cause for cause in audit.between_sessions if (cause.lost_rate or 0) >= _CRUMB]
    if between:
        _show_between(out, between)


def _show_between(out: Console, causes: Sequence[BrokenBy]) -> None:
    """What kept sessions from sharing their system prompt and tools."""
    lost = sum(cause.tokens_lost for cause in causes)
    share = sum(cause.lost_rate or 0.0 for cause in causes)
    out.print(
        f"\nWhat kept sessions from sharing their system prompt: {count(lost)} prompt tokens lost,"
        f" {_share(share)} of all",
        style="bold",
    )
    out.print(_causes(causes[:_SHOWN], "session"))


def _show_pairs(out: Console, audit: AppendOnly) -> None:
    out.print(Text("\n").append(_headline(audit), "bold"))
    out.print(_pairs(audit), style="dim")
    worth, free = _parted(audit.causes)
    if worth:
        out.print(_causes(worth[:_SHOWN]))
    rest = [*worth[_SHOWN:], *free]
    if rest:
        names = ", ".join(f"{cause.cause} ({cause.pairs:,})" for cause in rest)
        lost = sum(cause.tokens_lost for cause in rest)
        label = f"also, {count(lost)} tokens lost: " if lost else "also, nothing lost: "
        out.print(Padding(Text(label + names, "dim"), (0, 0, 0, _INDENT)))


def _headline(audit: AppendOnly) -> str:
    if not audit.tokens_lost:
        return "Append-only: no token was lost to a changed prefix"
    share = _share(audit.lost_rate)
    return f"What broke append-only: {count(audit.tokens_lost)} prompt tokens lost, {share} of all"


def _pairs(audit: AppendOnly) -> str:
    kept = audit.kept / audit.turn_pairs
    return (
        f"{audit.turn_pairs:,} turn pairs: {audit.kept:,} kept their prefix ({percent(kept)}),"
        f" {audit.rewritten:,} rewrote it, {audit.truncated:,} cut it off"
    )


def _parted(causes: tuple[BrokenBy, ...]) -> tuple[list[BrokenBy], list[BrokenBy]]:
    worth = [cause for cause in causes if cause.tokens_lost]
    return worth, [cause for cause in causes if not cause.tokens_lost]


def _causes(causes: Sequence[BrokenBy], unit: str = "pair") -> Table:
    """Share lost; beside it the cause, the remedy and an example, one below the other."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True, min_width=6)
    table.add_column()
    for cause in causes:
        pairs = f"{cause.pairs:,} {unit}" + ("s" if cause.pairs > 1 else "")
        text = Text(cause.title, "bold")
        text.append(f"  {count(cause.tokens_lost)} tokens in {pairs}", "dim not bold")
        text.append("\nfix: ", "green not bold").append(cause.remedy, "default not bold")
        table.add_row(Text(_share(cause.lost_rate), "bold red"), text)
        table.add_row("", _where(cause.example))
    return table


def _where(example: Example) -> Text:
    text = Text(f"e.g. {_pair(example)}", "dim")
    if example.message_index is not None and example.role == "tools":
        text.append(f", tool {example.message_index + 1}")
    elif example.message_index is not None:
        role = f" ({example.role})" if example.role else ""
        text.append(f", message {example.message_index + 1}{role}")
    if example.char is not None:
        text.append(f", from character {example.char + 1:,}")
    for sign, words in (("-", example.before), ("+", example.after)):
        if words is not None:
            text.append(f"\n{sign} {words}", "red" if sign == "-" else "green")
    return text


def _pair(example: Example) -> str:
    """`log.jsonl:12 after :9`, or the requests' numbers where there are no files."""
    if example.place is None or example.previous_place is None:
        return f"request {example.request:,} after {example.previous_request:,}"
    path, line = example.place.rsplit(":", 1)
    other, before = example.previous_place.rsplit(":", 1)
    named = "" if other == path else Path(other).name
    return f"{Path(path).name}:{line} after {named}:{before}"


def _share(rate: float | None) -> str:
    """`3.1%`, and `<0.1%` for what would round to nothing."""
    return "<0.1%" if rate is not None and 0 < rate < _CRUMB else percent(rate)
