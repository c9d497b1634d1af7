"""Prompts that are too long for the server: refused, cut or left out, and counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from loadkit.core.errors import InputError
from loadkit.profiles.kinds.corpus import TooLong
from loadkit.traffic.plan import Message, SessionPlan, Turn
from loadkit.traffic.planning import Planning

replace = msgspec.structs.replace


class Limit:
    """Holds single-turn sessions to a number of prompt tokens. Counts what it cut and left out.

    A prompt is cut at the end of its last message, so that what it shares with others stays.
    """

    def __init__(self, max_tokens: int | None, too_long: TooLong, planning: Planning):
        self.max_tokens, self.too_long, self._planning = max_tokens, too_long, planning
        self.truncations = self.dropped = 0

    def applied(self, sessions: Sequence[SessionPlan]) -> list[SessionPlan]:
        """The sessions that may be sent. InputError for a long one where that is refused."""
        if self.max_tokens is None:
            return list(sessions)
        held = (self._held(session, self.max_tokens) for session in sessions)
        return [session for session in held if session is not None]

    def _held(self, session: SessionPlan, limit: int) -> SessionPlan | None:
        turn = session.turns[0]
        num_tokens = self._count(turn, session.tools)
        if num_tokens <= limit:
            return session
        if self.too_long == "refuse":
            raise InputError(
                f"a prompt of {num_tokens} tokens is above max_prompt_tokens ({limit})",
                where=f"{self._planning.where}, {session.session}",
                remedy="traffic.too_long: truncate cuts such prompts, drop leaves them out",
            )
        cut = self._cut(turn, session.tools, limit) if self.too_long == "truncate" else None
        if cut is None:
            self.dropped += 1
            return None
        self.truncations += 1
        return replace(session, turns=(cut, *session.turns[1:]))

    def _count(self, turn: Turn, tools: Sequence[dict[str, Any]]) -> int:
        if isinstance(turn.prompt, tuple):
            return len(turn.prompt)
        if self._planning.exact is None:
            raise InputError(
                "max_prompt_tokens needs the served tokenizer",
                where=self._planning.where,
                remedy="--tokenizer, or an endpoint with /tokenize",
            )
        counter = self._planning.exact.counter
        if turn.prompt is not None:
            return counter.prompt(turn.prompt)
        return counter.chat(turn.messages, tools)

    def _cut(self, turn: Turn, tools: Sequence[dict[str, Any]], limit: int) -> Turn | None:
        """The longest beginning that fits; None if even without its last text it is too long."""
        if isinstance(turn.prompt, tuple):
            return replace(turn, prompt=turn.prompt[:limit])
        text = turn.prompt if turn.prompt is not None else turn.messages[-1].get("content")
        if not isinstance(text, str) or self._count(_with(turn, ""), tools) > limit:
            return None
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            if self._count(_with(turn, text[:middle]), tools) <= limit:
                low = middle
            else:
                high = middle - 1
        return _with(turn, text[:low]) if low else None


def _with(turn: Turn, text: str) -> Turn:
    if turn.prompt is not None:
        return replace(turn, prompt=text)
    last: Message = turn.messages[-1] | {"content": text}
    return replace(turn, messages=(*turn.messages[:-1], last))
