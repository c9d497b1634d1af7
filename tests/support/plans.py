"""Small profiles and plans for tests that run traffic."""

from __future__ import annotations

from typing import Any

from loadkit.profiles import Profile
from loadkit.traffic.plan import SessionPlan, TrafficPlan, Turn

OPEN = {"loop": "open", "process": "constant", "rate_per_s": 50}


def profile(arrivals: dict[str, Any] = OPEN, **changes: Any) -> Profile:
    """A valid profile; its traffic section is not used where the plan is given."""
    one = {"distribution": "constant", "mean": 4, "max": 4, "source": "test"}
    data = {
        "schema": "loadkit.profile/1",
        "name": "test",
        "summary": "for tests",
        "traffic": {"kind": "corpus", "corpus": "x", "requests": 1, "message_sentences": one},
        "arrivals": arrivals,
        "request": {"max_tokens": one, "timeout_s": 5.0},
        "max_duration_s": 30.0,
    }
    return Profile.model_validate(data | changes)


def session(name: str, *texts: str, start_s: float = 0.0, think_s: float = 0.0) -> SessionPlan:
    """A session with one turn of one user message per text."""
    turns = tuple(
        Turn(({"role": "user", "content": text},), 4, think_s=think_s if number else 0.0)
        for number, text in enumerate(texts)
    )
    return SessionPlan(name, start_s, turns, "chat")


def conversations(count: int, turns: int, *, every_s: float = 0.02) -> TrafficPlan:
    """`count` sessions of `turns` turns, one starting each `every_s`."""
    sessions = (
        session(
            f"s{number}",
            *(f"session {number} asks question {turn}" for turn in range(turns)),
            start_s=number * every_s,
        )
        for number in range(count)
    )
    return TrafficPlan("conversation", tuple(sessions))
