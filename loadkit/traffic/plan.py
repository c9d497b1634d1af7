"""What to send and when: sessions of turns with intended times. Pure data, made before the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

Message = dict[str, Any]


class Turn(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request of a session: `messages` are appended to the session's history before it is sent.

    think_s: pause after the previous turn's reply (0 for the first turn). recorded_reply: appended
    after this turn instead of the live reply when the session's `replies` is "recorded".
    """

    messages: tuple[Message, ...]
    max_tokens: int
    think_s: float = 0.0
    recorded_reply: str | None = None


class SessionPlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """A conversation of one user; a single-turn request is a session of one turn. Rows of a replayed
    log are one turn each, and those of one conversation have the same `session`.

    start_s: intended send of the first turn, seconds after the run's start (open loop); a closed
    loop ignores it. replies: "live" appends what the server answered, "recorded" what the plan
    holds. name: label in statistics. first_turn: number of its first turn, not 0 if an earlier
    SessionPlan holds turns of the same session.
    """

    session: str
    start_s: float
    turns: tuple[Turn, ...]
    name: str
    tools: tuple[dict[str, Any], ...] = ()
    replies: str = "live"
    first_turn: int = 0


class TrafficPlan(msgspec.Struct, frozen=True):
    """All sessions of a run, ordered by start_s, and what the planner had to do to make them.

    wraps: how often a corpus or log was started again. truncations: prompts cut to a length limit.
    """

    kind: str
    sessions: tuple[SessionPlan, ...]
    wraps: int = 0
    truncations: int = 0

    @property
    def num_requests(self) -> int:
        return sum(len(session.turns) for session in self.sessions)


def write_plan(plan: TrafficPlan, path: Path) -> None:
    """Write a plan as one JSON file that load workers read without any tokenizer."""
    path.write_bytes(msgspec.json.encode(plan))


def read_plan(path: Path) -> TrafficPlan:
    return msgspec.json.decode(path.read_bytes(), type=TrafficPlan)


def worker_share(plan: TrafficPlan, worker: int, num_workers: int) -> tuple[SessionPlan, ...]:
    """Sessions of one worker (0-based): whole sessions, dealt in turn, so that rates stay even."""
    order: dict[str, int] = {}
    return tuple(
        session
        for session in plan.sessions
        if order.setdefault(session.session, len(order)) % num_workers == worker
    )
