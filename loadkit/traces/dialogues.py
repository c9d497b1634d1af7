"""Whole dialogues as the requests that led to them: one cumulative request per reply asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from loadkit.traces.reading import Name
from loadkit.traces.texts import Reply, TextRequest

Message = dict[str, Any]


def requests_after(
    messages: Sequence[Message], ends: Sequence[int], session: int, name: Name | None
) -> Iterator[TextRequest]:
    """A request for each end: all messages before it; the message at the end is the reply.

    An end at len(messages), or one that is no assistant's message, has no known reply. name: what
    the dialogue is called, the id of its first request alone, so that a repeated one counts once.
    """
    for number, end in enumerate(ends):
        reply = messages[end] if end < len(messages) else None
        if reply is not None and reply.get("role") != "assistant":
            reply = None
        yield TextRequest(
            messages=list(messages[:end]),
            session=session,
            request_id=None if number else name,
            reply=_reply(reply),
        )


def replies_in(messages: Sequence[Message]) -> list[int]:
    """Where the replies stand that were asked for: an assistant may open a dialogue unasked."""
    return [at for at, said in enumerate(messages) if at and said["role"] == "assistant"]


def _reply(message: Message | None) -> Reply | None:
    """The reply's text. Tool calls are written by the template's own rules, so they are unknown."""
    if message is None or message.get("tool_calls"):
        return None
    return Reply(content=str(message.get("content") or ""), message=message)
