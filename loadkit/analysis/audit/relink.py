"""Turns of a log without session ids whose prefix broke: found again by their messages.

Sessions are inferred from blocks: a request joins the session whose prompt it contains. Just the
turns that an audit is after contain no earlier prompt, and would pass for new sessions.
"""

from __future__ import annotations

import numpy as np

from loadkit.core.chats import Chats
from loadkit.core.trace import Trace

# Bytes of a message as JSON. What is shorter ("yes", "go on") is said in many conversations.
MIN_TELLING_BYTES = 64


def relinked(trace: Trace, chats: Chats | None) -> list[tuple[int, int]]:
    """(earlier, later) rows, where the later one seemed to open a session.

    A request continues the latest one whose last message stands in its history, before its own last
    message. Empty for a log with session ids, or without messages.
    """
    if chats is None or not trace.sessions_inferred:
        return []
    opening = set(np.unique(trace.session, return_index=True)[1].tolist())
    ended: dict[int, int] = {}
    pairs = []
    for row in range(len(chats)):
        chat = chats[row]
        if chat.is_prompt or not chat.parts:
            continue
        earlier = _continued(chats, chat.parts[:-1], ended) if row in opening else None
        if earlier is not None:
            pairs.append((earlier, row))
        ended[chat.parts[-1]] = row
    return pairs


def _continued(chats: Chats, history: tuple[int, ...], ended: dict[int, int]) -> int | None:
    for part in reversed(history):
        if part in ended and chats.size(part) >= MIN_TELLING_BYTES:
            return ended[part]
    return None
