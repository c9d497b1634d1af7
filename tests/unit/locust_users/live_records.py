"""Records of finished requests for the tests of the live view."""

from __future__ import annotations

from typing import Any

from loadkit.runs.record import Record


def finished(text: str = "hello", session: str = "a", turn: int = 0, **fields: Any) -> Record:
    """A request sent at 10.0 s with its first token at 10.25 s and its last at 11.5 s."""
    defaults: dict[str, Any] = {
        "name": "chat",
        "worker": 0,
        "outcome": "ok",
        "intended_s": 9.998,
        "sent_s": 10.0,
        "first_token_s": 10.25,
        "completed_s": 11.5,
        "prompt_tokens": 100,
        "output_tokens": 20,
        "messages": [{"role": "user", "content": text}],
    }
    return Record(session=session, turn=turn, **(defaults | fields))
