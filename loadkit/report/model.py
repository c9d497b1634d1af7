"""The report as data, `loadkit.report/1`: all that HTML and Markdown show, nothing else.

It is made from files of run folders only; nothing is measured again.
"""

from __future__ import annotations

from typing import Any

import msgspec

from loadkit.report.fit import Fit
from loadkit.report.objectives import Objectives
from loadkit.report.sent import Sent
from loadkit.report.timeline import Timeline

SCHEMA = "loadkit.report/1"
PARTS = ("continuation", "shared", "replay_cross_session", "replay_same_session", "miss")
MISSES = ("miss_compulsory", "miss_capacity", "miss_unexplained")
CAUSES = ("continuation", "shared", "replay", "miss")


class Side(msgspec.Struct, frozen=True):
    """One bar: shares of prompt tokens by cause, 0..1. None: not known.

    measured: from a run; else from a forecast. basis: what the figures were counted from.
    conclusive: False for a forecast that says itself that it cannot be relied on. organic_low and
    organic_high: its interval, as low and high are the hit rate's. misses: the miss by cause, empty
    where that is not known. caching_off: that is why misses are unexplained.
    """

    label: str
    measured: bool
    basis: str
    hit_rate: float | None
    low: float | None
    high: float | None
    parts: dict[str, float | None]
    organic_hit_rate: float | None
    conclusive: bool = True
    organic_low: float | None = None
    organic_high: float | None = None
    misses: dict[str, float] = {}
    caching_off: bool = False

    @property
    def replay(self) -> float | None:
        """Share of prompt tokens that were hit as replays of any kind."""
        kinds = [self.parts.get("replay_cross_session"), self.parts.get("replay_same_session")]
        return None if None in kinds else sum(kind or 0.0 for kind in kinds)


class Curve(msgspec.Struct, frozen=True):
    """Hit rate by cause over capacity. points: as in `loadkit analyze --json`, finite only.

    capacity_tokens: the server's, None if not known.
    """

    label: str
    points: tuple[dict[str, Any], ...]
    capacity_tokens: int | None


class Waits(msgspec.Struct, frozen=True):
    """TTFT of one run by cause. ecdf: per cause (seconds, share of requests at or below)."""

    label: str
    figures: dict[str, dict[str, Any]]
    ecdf: dict[str, tuple[tuple[float, float], ...]]


class Facts(msgspec.Struct, frozen=True):
    """A run's counts, setting and reconciliation, as run.json has them."""

    label: str
    run: dict[str, Any]


class Report(msgspec.Struct, frozen=True):
    """Everything a report shows. gate None: the gate was not asked."""

    title: str
    headline: str
    sides: tuple[Side, ...]
    curves: tuple[Curve, ...]
    waits: tuple[Waits, ...]
    facts: tuple[Facts, ...]
    gate: dict[str, Any] | None
    expected: dict[str, Any] | None
    times: tuple[Timeline, ...] = ()
    fits: tuple[Fit, ...] = ()
    sent: tuple[Sent, ...] = ()
    objectives: tuple[Objectives, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **msgspec.to_builtins(self)}
