"""What a plan comes to, in counts: for people who look at it before it is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from loadkit.traffic.plan import SessionPlan, TrafficPlan


def plan_facts(plan: TrafficPlan) -> dict[str, Any]:
    """Sessions and requests by part and phase, what was planned besides, seconds of starts."""
    sessions = list(_all(plan.sessions))
    turns = [turn for session in sessions for turn in session.turns]
    starts = [session.start_s for session in plan.sessions]
    return {
        "kind": plan.kind,
        "sessions": len({session.session for session in plan.sessions}),
        "sub_agents": len(sessions) - len(plan.sessions),
        "requests": len(turns),
        "requests_by_name": dict(_requests(sessions, "name")),
        "requests_by_phase": dict(_requests(sessions, "phase")),
        "max_output_tokens": sum(turn.max_tokens for turn in turns),
        "first_start_s": round(min(starts, default=0.0), 3),
        "last_start_s": round(max(starts, default=0.0), 3),
        "wraps": plan.wraps,
        "truncations": plan.truncations,
        "dropped": plan.dropped,
        "notes": list(plan.notes),
        "compactions": plan.compactions,
        "retries": sum(turn.retry for turn in turns),
        "leaving": sum(turn.leaves_after_s is not None for turn in turns),
    }


def _all(sessions: tuple[SessionPlan, ...]) -> Iterator[SessionPlan]:
    for session in sessions:
        yield session
        for turn in session.turns:
            yield from _all(turn.sub_agents)


def _requests(sessions: list[SessionPlan], key: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for session in sessions:
        counts[getattr(session, key)] += len(session.turns)
    return counts
