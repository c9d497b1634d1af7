"""What kept sessions from sharing a system prompt and tools that are nearly the same.

Only first requests of sessions are looked at: what comes later hits the session's own history.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import numpy as np
from msgspec.structs import replace

from loadkit.analysis.audit.compare import Side, texts_of, what_broke
from loadkit.analysis.audit.message import Found
from loadkit.analysis.audit.pairs import Losses
from loadkit.analysis.audit.result import Break, BrokenBy, by_cause
from loadkit.analysis.audit.texts import text_of
from loadkit.core.chats import Chats
from loadkit.core.trace import Trace

# Different heads (system prompt and tools) compared; a log with more has other problems.
MAX_HEADS = 10_000
_FIXABLE = ("_in_system_prompt", "_in_tools", "tools_reordered", "tools_key_order", "whitespace")
_REMEDY = "Move it behind all that sessions have in common: to the first user message."
_NAMED_DAYS = frozenset(
    [
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
        "Mon",
        "Tue",
        "Wed",
        "Thu",
        "Fri",
        "Sat",
        "Sun",
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
        "Jan",
        "Feb",
        "Mar",
        "Apr",
        "Jun",
        "Jul",
        "Aug",
        "Sep",
        "Oct",
        "Nov",
        "Dec",
    ]
)


def between_sessions(
    trace: Trace, losses: Losses, show_text: bool, later_turns: Set[int]
) -> tuple[BrokenBy, ...]:
    """What kept sessions from sharing, the costliest cause first.

    `later_turns` are rows that only seem to open a session.
    """
    breaks = [found for found in _unshared(trace, losses) if found.after not in later_turns]
    causes = by_cause(breaks, trace, show_text)
    return tuple(_between(cause) for cause in causes)


def _between(cause: BrokenBy) -> BrokenBy:
    """The remedy that helps between sessions: keeping a value for a session is not enough."""
    if "_in_" not in cause.cause:
        return cause
    title = cause.title.replace("changed", "differs from session to session")
    return replace(cause, title=title, remedy=_REMEDY)


def _unshared(trace: Trace, losses: Losses) -> list[Break]:
    """Sessions whose first request missed a head that an earlier session had, but for a detail."""
    chats = texts_of(trace)
    if chats is None:
        return []
    heads: dict[tuple[int, ...], int] = {}
    found: dict[tuple[int, ...], tuple[int, Found] | None] = {}
    models: dict[tuple[str, ...], int] = {}
    breaks = []
    for row in np.sort(np.unique(trace.session, return_index=True)[1]).tolist():
        side = Side(chats, chats[row])
        head = _head(side)
        if head is None:
            continue
        if head not in heads and len(heads) < MAX_HEADS:
            heads[head] = row
            found[head] = _compared(chats, row, models.setdefault(_kind(side), row))
        like = found.get(head)
        if like is None:
            continue
        model, cause = like
        lost = _lost(losses, chats, model, row)
        if lost:
            breaks.append(Break(model, row, lost, cause))
    return breaks


def _head(side: Side) -> tuple[int, ...] | None:
    """Ids of the tools and the leading system messages; None for a request without either."""
    count = 0 if side.chat.is_prompt else side.num_system
    if count == 0 and side.chat.tools < 0:
        return None
    return (side.chat.tools, *side.chat.parts[:count])


def _kind(side: Side) -> tuple[str, ...]:
    """What two heads of one kind have in common: the system prompt's plain words, tools by name."""
    words: list[str] = []
    for index in range(side.num_system):
        words += (word for word in text_of(side.message(index)).split() if word.isalpha())
    tools = side.chats.part(side.chat.tools) or []
    names = sorted(str(_name(tool)) for tool in tools)
    return (*(word for word in words if word not in _NAMED_DAYS), "", *names)


def _name(tool: Any) -> Any:
    function = tool.get("function", tool) if isinstance(tool, dict) else tool
    return function.get("name") if isinstance(function, dict) else function


def _compared(chats: Chats, row: int, model: int) -> tuple[int, Found] | None:
    """The first request of the same kind and how this one differs, if that could be mended."""
    if row == model:
        return None
    found = what_broke(chats, model, row)
    in_head = found.role in ("system", "developer", "tools")
    return (model, found) if in_head and found.cause.endswith(_FIXABLE) else None


def _lost(losses: Losses, chats: Chats, model: int, row: int) -> int:
    """Tokens of the model's head that this request missed, taking text to spread evenly."""
    chat = chats[model]
    head = sum(map(chats.size, _head(Side(chats, chat)) or ()))
    whole = sum(map(chats.size, chat.parts)) + chats.size(chat.tools)
    return int(losses.tokens(np.array([model]), np.array([row]), head / whole)[0])
