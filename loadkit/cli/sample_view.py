"""A sampled analysis as a person reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from loadkit.cli.rate_tables import console, count, curve_table, note, percent, split_table
from loadkit.core.units import plural

if TYPE_CHECKING:
    from loadkit.analysis.sampling import SampledAnalysis

_T_QUANTILE = 2.78


def show(analysis: SampledAnalysis, format: str) -> None:
    """What was sampled first, then split and curve."""
    out, sampled, infinite = console(), analysis.sampled, analysis.infinite
    error = sampled.standard_error
    out.print(
        f"{format} log: {plural(analysis.requests, 'request')}, {count(analysis.prompt_tokens)} prompt"
        f" tokens, {count(analysis.blocks)} blocks\nSAMPLED: {100 * sampled.rate:g}% of the light"
        f" blocks and all heavy ones, {count(sampled.kept_touches)} touches kept",
        style="dim",
    )
    # The standard error comes of five parts: with so few, 95% are within 2.78 of it (Student's t).
    spread = "" if error is None else f" ± {100 * _T_QUANTILE * error:.2f} points (95%)"
    out.print(
        f"\n{percent(infinite.hit_rate)}{spread} of the prompt tokens are reusable", style="bold"
    )
    out.print(
        f"token-weighted, infinite cache, blocks of {analysis.block_size} tokens\n", style="dim"
    )
    out.print(split_table(msgspec.structs.asdict(infinite), out.width))
    if analysis.curve:
        out.print("\nLRU cache of a finite size", style="bold")
        out.print(curve_table(analysis.curve, out.width))
    for warning in analysis.warnings:
        note(out, warning)
