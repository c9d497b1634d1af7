"""The traffic kinds, one a file: each turns its section of a profile into sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loadkit.profiles import SingleTraffic
from loadkit.traffic.kinds import agent, batch, conversation, corpus, document, replay
from loadkit.traffic.planning import Planned, Planning

# plan(section, count, planning): `count` is what the section's `counted_by` counts.
PLANNERS: dict[str, Callable[[Any, Any, Planning], Planned]] = {
    "conversation": conversation.plan,
    "corpus": corpus.plan,
    "replay": replay.plan,
    "agent": agent.plan,
    "document": document.plan,
    "batch": batch.plan,
}


def plan_kind(traffic: SingleTraffic, count: int | None, planning: Planning) -> Planned:
    """The sessions of one kind of traffic; count None: as many as the section itself says."""
    return PLANNERS[traffic.kind](traffic, count, planning)
