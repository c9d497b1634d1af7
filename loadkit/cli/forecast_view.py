"""The forecast as a person reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from loadkit.cli.rate_tables import console, count, curve_table, note, percent, split_table
from loadkit.core.units import plural

if TYPE_CHECKING:
    from loadkit.forecast import Forecast


def show(forecast: Forecast) -> None:
    """Headline, split, curve, what it rests on, the naive answers beside it, warnings."""
    out, log = console(), forecast.log
    out.print(
        f"from {plural(log.requests, 'request')}, {plural(log.sessions, 'session')},"
        f" {count(log.prompt_tokens)} prompt tokens",
        style="dim",
    )
    out.print(f"\n{_headline(forecast)}", style="bold")
    if forecast.hit_rate.estimate is not None:
        out.print()
        out.print(split_table(msgspec.structs.asdict(forecast.split)))
        out.print(f"\norganic hit rate {_with_interval(forecast.organic_hit_rate)}")
        if forecast.placement is not None:
            out.print(forecast.placement.note)
        if forecast.warm_hit_rate is not None:
            out.print(f"last third of the period, cache warm: {percent(forecast.warm_hit_rate)}")
        if forecast.curve:
            out.print("\nThe same in an LRU cache of another size", style="bold")
            out.print(curve_table(forecast.curve))
        else:
            out.print(
                "\nno curve of capacities: without times nothing says what a cache holds between two"
                " turns",
                style="dim",
            )
        for line in _basis(forecast):
            out.print(line, style="dim")
    out.print(_baselines(forecast), style="dim")
    for warning in forecast.warnings:
        note(out, warning)


def _headline(forecast: Forecast) -> str:
    scenario = forecast.scenario
    capacity = scenario.capacity_blocks
    by_engine = forecast.placement is not None and forecast.placement.order == "engine"
    kind = "cache" if by_engine else "LRU cache"
    cache = "infinite cache" if capacity is None else f"{kind} of {capacity:,} blocks"
    where = f"token-weighted, {cache}, blocks of {scenario.block_size} tokens"
    if forecast.hit_rate.estimate is None:
        return f"no forecast for traffic {scenario.traffic:g}x ({where})"
    how = "counted exactly, not estimated; it holds " if _is_exact(forecast) else "it holds "
    return (
        f"{_with_interval(forecast.hit_rate)} hit rate {_setting(forecast)}"
        f" ({where})\n{how}{forecast.assumes}"
    )


def _setting(forecast: Forecast) -> str:
    asked = forecast.scenario
    words = [f"at {asked.traffic:g}x the log's traffic"]
    if asked.traffic == 1:
        words = ["at the log's own traffic"]
    if asked.replicas > 1:
        words.append(f"on {asked.replicas} replicas ({asked.routing})")
    if asked.ttl_s is not None:
        words.append(f"expiring after {asked.ttl_s:g} s")
    if asked.horizon_s is not None:
        words.append(f"from a cold start of {asked.horizon_s:g} s")
    return ", ".join(words)


def _with_interval(rate: msgspec.Struct) -> str:
    """`43.1%`, or `43.1% (39.0% to 47.2%, 90%)`."""
    values = msgspec.structs.asdict(rate)
    text = percent(values["estimate"])
    if values["confidence"] is None:
        return text
    low, high = percent(values["low"]), percent(values["high"])
    return f"{text} ({low} to {high}, {100 * values['confidence']:g}% interval)"


def _is_exact(forecast: Forecast) -> bool:
    return forecast.hit_rate.method == "exact"


def _basis(forecast: Forecast) -> list[str]:
    """What the estimate rests on, in words; nothing for counted rates."""
    check, lines = forecast.self_check, []
    if check.get("private_rate") is not None:
        lines.append(
            f"\nif all that one session has alone is private {percent(check['private_rate'])},"
            f" if most of it is shareable {percent(check['shareable_rate'])}"
        )
    burst = check.get("shift_test_points")
    if burst is not None and abs(burst) >= 2:
        lines.append(f"traffic is bursty: spread evenly, the log's own rate moves {burst:+.1f} pt")
    if check["method"] == "torn_requests":
        lines.append(
            "sessions were made of requests drawn one by one, by the earlier turns that their messages"
            " show: 1 point was added to the half width"
        )
    if check.get("sessions_inferred"):
        lines.append("sessions are inferred: 8 points were added to the half width")
    return lines


def _baselines(forecast: Forecast) -> str:
    naive = forecast.baselines
    return (
        f"\nnaive answers, for comparison only: the log's own rate {percent(naive.own_rate)},"
        f" at capacity / traffic {percent(naive.scaled_capacity)},"
        f" last third of the log {percent(naive.last_third)}"
    )
