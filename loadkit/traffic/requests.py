"""The requests that a plan comes to, as far as they are known before anything is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from loadkit.traffic.plan import Message, SessionPlan, TrafficPlan, Turn


class PlannedRequest(NamedTuple):
    """One request: `messages` is the history it would be sent with. at_s: when, if every answer
    took the nominal latency."""

    session: SessionPlan
    turn: Turn
    number: int
    at_s: float
    messages: list[Message]


ReplyText = Callable[[SessionPlan, int, Turn], str | None]


def recorded_reply(session: SessionPlan, number: int, turn: Turn) -> str | None:
    """What the plan holds as the reply, None if nothing."""
    return turn.recorded_reply


def requests_of(
    plan: TrafficPlan, *, latency_s: float = 1.0, reply: ReplyText = recorded_reply
) -> Iterator[PlannedRequest]:
    """All requests, session by session, sub-agents after the turn that sends them.

    reply: the text that joins the history as a turn's answer; None adds no message. A retry is
    answered in the place of the turn before it, a compaction replaces the history.
    """
    for session in plan.sessions:
        yield from _session(session, session.start_s, [], latency_s, reply)


def _session(
    session: SessionPlan,
    start_s: float,
    inherited: Sequence[Message],
    latency_s: float,
    reply: ReplyText,
) -> Iterator[PlannedRequest]:
    history = list(inherited)
    now, asked = start_s, len(history)
    for number, turn in enumerate(session.turns):
        now += turn.think_s
        history = [] if turn.compacts else history[:asked] if turn.retry else history
        history.extend(turn.messages)
        asked = len(history)
        yield PlannedRequest(session, turn, session.first_turn + number, now, list(history))
        answer = reply(session, session.first_turn + number, turn)
        if answer is not None:
            history.append({"role": "assistant", "content": answer})
        now += latency_s
        begun_s = now
        for sub in turn.sub_agents:
            told = history if sub.inherits_history else ()
            for request in _session(sub, begun_s, told, latency_s, reply):
                now = max(now, request.at_s + latency_s)
                yield request
