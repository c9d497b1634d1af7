"""Simulated caches as a person reads them: a table a kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from loadkit.cli.rate_tables import percent, table

_TITLES = {
    "policies": "Eviction policies, simulated",
    "ttl": "Expiry, LRU beyond it",
    "tiers": "Exclusive LRU tiers",
    "slots": "llama.cpp's slots",
}
_RATES = (
    "hit_rate",
    "organic_hit_rate",
    "replay",
    "continuation",
    "shared",
    "miss_capacity",
)
_HEADS = {
    "capacity_blocks": "blocks",
    "organic_hit_rate": "organic",
    "miss_capacity": "lost",
    "refreshed_on_use": "refreshed",
}


def show(out: Console, answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """One table for each kind of simulation that was asked for."""
    for kind, points in answers.items():
        out.print(f"\n{_TITLES[kind]}", style="bold")
        out.print(_table([_with_replay(point) for point in points]))


def _with_replay(point: Mapping[str, Any]) -> dict[str, Any]:
    """Both kinds of replay as one column; unknown stays None."""
    same, cross = point.get("replay_same_session"), point.get("replay_cross_session")
    return {**point, "replay": None if same is None or cross is None else same + cross}


def _table(points: Sequence[Mapping[str, Any]]) -> Table:
    columns = [
        name for name in _columns(points) if any(point.get(name) is not None for point in points)
    ]
    heads = [_HEADS.get(name, name.replace("_", " ")) for name in columns]
    made = table(heads, "right", no_wrap=True)
    for point in points:
        made.add_row(*(_cell(name, point.get(name)) for name in columns))
    return made


def _columns(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was asked first (policy, capacity, ...), then the rates."""
    rates = {*_RATES, "replay_same_session", "replay_cross_session", "miss_compulsory"}
    others = [name for name in points[-1] if name not in rates and name != "capacity_tokens"]
    return others + list(_RATES)


def _cell(name: str, value: Any) -> str:
    if name == "refreshed_on_use":
        return "yes" if value else "no"
    if value is None:
        return "infinite" if name == "capacity_blocks" else ""
    if name in _RATES:
        return percent(value)
    if isinstance(value, str):
        return value
    small = isinstance(value, float) and value < 1000
    return f"{value:.3g}" if small else f"{value:,.0f}"
