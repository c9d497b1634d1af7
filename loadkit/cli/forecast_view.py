"""The forecast as a person reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from rich.text import Text

from loadkit.cli.rate_tables import console, count, curve_table, percent, split_table

if TYPE_CHECKING:
    from loadkit.forecast import Forecast


def show(forecast: Forecast) -> None:
    """Headline, split, curve, the naive answers beside it, warnings."""
    out, log = console(), forecast.log
    out.print(
        f"from {log.requests:,} requests, {log.sessions:,} sessions,"
        f" {count(log.prompt_tokens)} prompt tokens",
        style="dim",
    )
    out.print(f"\n{_headline(forecast)}\n", style="bold")
    if forecast.status == "ok":
        out.print(split_table(msgspec.structs.asdict(forecast.split)))
        out.print(f"\norganic hit rate {percent(forecast.organic_hit_rate.estimate)}")
        out.print("\nThe same log in an LRU cache of another size", style="bold")
        out.print(curve_table(forecast.curve))
    out.print(_baselines(forecast), style="dim")
    for warning in forecast.warnings:
        out.print(Text("note: ", "yellow").append(warning, "default"))


def _headline(forecast: Forecast) -> str:
    scenario = forecast.scenario
    capacity = scenario.capacity_blocks
    cache = "infinite cache" if capacity is None else f"LRU cache of {capacity:,} blocks"
    where = f"token-weighted, {cache}, blocks of {scenario.block_size} tokens"
    if forecast.status != "ok":
        return f"no forecast for traffic {scenario.traffic:g}x ({where})"
    return (
        f"{percent(forecast.hit_rate.estimate)} hit rate at the log's own traffic"
        f" ({where})\ncounted exactly, not estimated; it holds if traffic stays as in the log"
    )


def _baselines(forecast: Forecast) -> str:
    naive = forecast.baselines
    return (
        f"\nnaive answers, for comparison only: the log's own rate {percent(naive.own_rate)},"
        f" at capacity / traffic {percent(naive.scaled_capacity)},"
        f" last third of the log {percent(naive.last_third)}"
    )
