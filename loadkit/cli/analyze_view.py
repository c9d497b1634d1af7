"""The analysis as a person reads it: what matters first, details dim and last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadkit.cli import audit_view, prefix_view
from loadkit.cli.rate_tables import console, count, curve_table, note, percent, split_table
from loadkit.core.units import plural

if TYPE_CHECKING:
    from loadkit.analysis import Analysis
    from loadkit.analysis.curve import CurvePoint

# Of a curve that nobody asked for by capacity, as many points as a glance takes in.
_GLANCE = 8


def show(analysis: Analysis, format: str, *, all_points: bool = False) -> None:
    """Headline and split, what broke append-only, who carries the hits, the curve, the rest."""
    out = console()
    _show_split(out, analysis, format)
    audit_view.show(out, analysis.append_only)
    prefix_view.show(out, analysis)
    if analysis.curve:
        points = analysis.curve if all_points else _thinned(analysis.curve)
        out.print("\nLRU cache of a finite size", style="bold")
        out.print(curve_table(points, out.width))
        if analysis.placement is not None:
            out.print(analysis.placement.note, style="dim")
    _show_rest(out, analysis)


def _show_split(out: Console, analysis: Analysis, format: str) -> None:
    infinite = analysis.infinite
    out.print(_what(analysis, format), style="dim")
    out.print(
        f"\n{percent(infinite.hit_rate)} of the prompt tokens are reusable",
        style="bold",
    )
    out.print(
        f"token-weighted, infinite cache, blocks of {analysis.block_size} tokens\n", style="dim"
    )
    out.print(split_table(msgspec.structs.asdict(infinite), out.width))
    out.print(
        Text(f"\norganic hit rate {percent(infinite.organic_hit_rate)}", "bold").append(
            "  continuation + shared, of requests that are no replay", "dim not bold"
        )
    )


def _what(analysis: Analysis, format: str) -> str:
    sessions = plural(analysis.sessions, "session")
    sessions += " (inferred)" if analysis.sessions_inferred else ""
    return (
        f"{format} log: {plural(analysis.requests, 'request')}, {sessions},"
        f" {count(analysis.prompt_tokens)} prompt tokens"
    )


def _thinned(curve: Sequence[CurvePoint]) -> list[CurvePoint]:
    """_GLANCE points from first to last, evenly apart."""
    if len(curve) <= _GLANCE:
        return list(curve)
    step = (len(curve) - 1) / (_GLANCE - 1)
    return [curve[round(step * k)] for k in range(_GLANCE)]


def _show_rest(out: Console, analysis: Analysis) -> None:
    out.print("\nMore", style="bold")
    table = Table.grid(padding=(0, 2, 0, 0))
    for label, text in (*_weightings(analysis), *prefix_view.diversity_rows(analysis)):
        table.add_row(Text(label), Text(text, "dim"))
    out.print(table)
    for warning in analysis.warnings:
        note(out, warning)


def _weightings(analysis: Analysis) -> list[tuple[str, str]]:
    infinite = analysis.infinite
    return [
        (
            "by request",
            f"{percent(infinite.per_request_mean_hit_rate)} hit rate, each weighing the same",
        ),
        (
            "by block",
            f"{percent(infinite.block_hit_rate)} as given:"
            f" {analysis.blocks:,} blocks, {analysis.unique_blocks:,} distinct",
        ),
    ]
