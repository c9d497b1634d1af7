"""The SLO table: each limit, how many requests met it, and all of them together."""

from __future__ import annotations

from typing import Any

import msgspec

from loadkit.gate.objectives import LIMITS, judged, share_interval
from loadkit.gate.policy import Policy
from loadkit.gate.requests import Requests
from loadkit.profiles import Slo


class Objective(msgspec.Struct, frozen=True):
    """One limit in seconds (None: all limits together), how many requests of how many met it, and
    the interval of that share by sessions."""

    name: str
    limit_s: float | None
    met: int
    requests: int
    share: float
    interval: tuple[float, float]


class Objectives(msgspec.Struct, frozen=True):
    """target: the share of requests that must meet them all."""

    label: str
    target: float
    rows: tuple[Objective, ...]


def objectives(label: str, requests: Requests, policy: Policy) -> Objectives | None:
    """None when nobody named an objective, or nothing was sent."""
    slo = policy.slo
    if slo is None:
        return None
    named = {name: getattr(slo, name) for name in LIMITS if getattr(slo, name) is not None}
    single = [(name, limit, slo.model_copy(update=_only(name))) for name, limit in named.items()]
    rows = [_row(requests, policy, name, limit, one) for name, limit, one in single]
    rows.append(_row(requests, policy, "all of them", None, slo))
    known = tuple(row for row in rows if row is not None)
    return Objectives(label, slo.share, known) if known else None


def _only(name: str) -> dict[str, Any]:
    return {other: None for other in LIMITS if other != name}


def _row(
    requests: Requests, policy: Policy, name: str, limit: float | None, slo: Slo
) -> Objective | None:
    one = Policy(policy.thresholds, slo, policy.source)
    sent, met = judged(requests, one)
    total, good = int(sent.sum()), int((sent & met).sum())
    if not total:
        return None
    ends = share_interval(requests, sent, met, one)
    return Objective(name, limit, good, total, good / total, ends)
