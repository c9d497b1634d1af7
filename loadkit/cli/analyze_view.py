"""The analysis as a person reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from rich.text import Text

from loadkit.cli.rate_tables import console, count, curve_table, percent, split_table

if TYPE_CHECKING:
    from loadkit.analysis import Analysis


def show(analysis: Analysis, format: str) -> None:
    """Headline, split, organic rate, curve, warnings."""
    out, infinite = console(), analysis.infinite
    out.print(_what(analysis, format), style="dim")
    out.print(
        f"\n{percent(infinite.hit_rate)} of the prompt tokens are reusable"
        f" (token-weighted, infinite cache, blocks of {analysis.block_size} tokens)\n",
        style="bold",
    )
    out.print(split_table(msgspec.structs.asdict(infinite)))
    out.print(
        f"\norganic hit rate {percent(infinite.organic_hit_rate)}"
        " = (continuation + shared) / prompt tokens of requests that are no replay"
    )
    out.print(_others(analysis), style="dim")
    if analysis.curve:
        out.print("\nLRU cache of a finite size", style="bold")
        out.print(curve_table(analysis.curve))
    for warning in analysis.warnings:
        out.print(Text("note: ", "yellow").append(warning, "default"))


def _what(analysis: Analysis, format: str) -> str:
    sessions = f"{analysis.sessions:,} sessions" + (
        " (inferred)" if analysis.sessions_inferred else ""
    )
    return (
        f"{format} log: {analysis.requests:,} requests, {sessions},"
        f" {count(analysis.prompt_tokens)} prompt tokens,\n{analysis.blocks:,} blocks of which"
        f" {analysis.unique_blocks:,} distinct"
    )


def _others(analysis: Analysis) -> str:
    turns, prompts = analysis.append_only, analysis.diversity
    return (
        f"other weightings: per request {percent(analysis.infinite.per_request_mean_hit_rate)},"
        f" blocks as given {percent(analysis.infinite.block_hit_rate)}\n"
        f"turn pairs {turns.turn_pairs:,}: {turns.kept:,} append-only, {turns.rewritten:,} rewritten,"
        f" {turns.truncated:,} truncated\n"
        f"distinct prompts {prompts.distinct_prompts:,} ({percent(prompts.distinct_share)} of requests)"
    )
