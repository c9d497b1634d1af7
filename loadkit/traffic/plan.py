"""What to send and when: sessions of turns with intended times. Pure data, made before the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

Message = dict[str, Any]
Api = Literal["chat", "completions", "messages"]
Phase = Literal["priming", "warmup", "measured"]


class Turn(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request of a session: `messages` are appended to the session's history before it is sent.

    think_s: pause after the previous turn's reply (0 for the first turn). recorded_reply: appended
    after this turn instead of the live reply when the session's `replies` is "recorded".
    exact_output: ask for exactly `max_tokens` (ignore_eos, min_tokens) where the server can.

    prompt: text or token ids sent as they are through /v1/completions; the history plays no part.
    retry: the previous turn's request is sent again, and this answer takes its answer's place.
    compacts: the history is replaced by `messages`, a mutation on purpose, counted as such.
    leaves_after_s: the user hangs up so long after sending (None: stays to the end).
    sub_agents: sessions that start together once this turn is answered; the next turn waits until
    all of them have ended.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    think_s: float = 0.0
    recorded_reply: str | None = None
    exact_output: bool = False
    prompt: str | tuple[int, ...] | None = None
    retry: bool = False
    compacts: bool = False
    leaves_after_s: float | None = None
    sub_agents: tuple[SessionPlan, ...] = ()


class SessionPlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """A conversation of one user; a single-turn request is a session of one turn. Rows of a replayed
    log are one turn each, and those of one conversation have the same `session`.

    start_s: intended send of the first turn, seconds after the run's start (open loop); a closed
    loop ignores it. replies: "live" appends what the server answered, "recorded" what the plan
    holds. reasoning: whether a live reply's reasoning is echoed back in the history. name: label in
    statistics, the part of a mixture it belongs to. first_turn: number of its first turn, not 0 if
    an earlier SessionPlan holds turns of the same session. phase: only `measured` sessions count in
    the run's figures; the others are sent and kept all the same. inherits_history: a sub-agent that
    begins with its parent's history as it is then, not with an empty one. guarded: a rewritten
    history is refused; a replayed log is sent as it is, rewrites of its own and all.

    shared: how many leading messages of its first request (and its tools) other sessions have too,
    on purpose. repeats: its whole first request is one that others send too, on purpose (a wrap, a
    common question, priming). Both are what the freshness check holds reuse against.
    """

    session: str
    start_s: float
    turns: tuple[Turn, ...]
    name: str
    tools: tuple[dict[str, Any], ...] = ()
    replies: str = "live"
    first_turn: int = 0
    api: Api = "chat"
    reasoning: Literal["stripped", "echoed"] = "stripped"
    phase: Phase = "measured"
    inherits_history: bool = False
    guarded: bool = True
    shared: int = 0
    repeats: bool = False

    @property
    def num_requests(self) -> int:
        """Turns of this session and of all its sub-agents."""
        return sum(1 + sum(sub.num_requests for sub in turn.sub_agents) for turn in self.turns)

    @property
    def compactions(self) -> int:
        """Its turns that replace the history on purpose, those of its sub-agents included."""
        return sum(
            turn.compacts + sum(sub.compactions for sub in turn.sub_agents) for turn in self.turns
        )


class TrafficPlan(msgspec.Struct, frozen=True):
    """All sessions of a run, ordered by start_s, and what the planner had to do to make them.

    wraps: how often a corpus or log was started again. truncations: prompts cut to a length limit.
    dropped: prompts left out for their length. freshness: what its prompts share, by who declared it
    (`planning.FreshnessReport`); None: not looked at, for want of a tokenizer. notes: what of a log
    is not sent, or not counted.
    """

    kind: str
    sessions: tuple[SessionPlan, ...]
    wraps: int = 0
    truncations: int = 0
    dropped: int = 0
    freshness: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()

    @property
    def num_requests(self) -> int:
        return sum(session.num_requests for session in self.sessions)

    @property
    def compactions(self) -> int:
        """Requests that replace their session's history on purpose: mutations, planned ones."""
        return sum(session.compactions for session in self.sessions)


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
