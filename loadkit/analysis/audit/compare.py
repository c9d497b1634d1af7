"""What broke the prefix between two requests of a session, read off their messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loadkit.analysis.audit.message import (
    Found,
    compare_continuation,
    compare_messages,
    compare_texts,
    compare_tools,
)
from loadkit.analysis.audit.texts import has_reasoning, role_of, text_of, without_reasoning
from loadkit.core.chats import NO_PART, Chat, Chats
from loadkit.core.trace import Trace

_SYSTEM_ROLES = ("system", "developer")
_RETURNED_ONLY = ("refusal", "annotations", "audio", "role")
# A context that was cut down to a summary often says so near its start.
_SUMMARY_HINTS = ("summar", "compacted", "continued from a previous", "earlier conversation")
_HINT_CHARS = 4000


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two requests, with access to its texts."""

    chats: Chats
    chat: Chat

    def message(self, index: int) -> Any | None:
        """None: there is no such message, or its text was not kept."""
        return self.chats.part(self.chat.parts[index]) if index < len(self.chat.parts) else None

    def role(self, index: int) -> str | None:
        return role_of(self.message(index))

    @property
    def num_system(self) -> int:
        """Leading system messages."""
        count = 0
        while count < len(self.chat.parts) and self.role(count) in _SYSTEM_ROLES:
            count += 1
        return count

    def prompt(self) -> str | None:
        """The whole prompt of a request that has no messages."""
        pieces = [self.chats.part(part) for part in self.chat.parts]
        return None if None in pieces else "".join(str(piece) for piece in pieces)


def texts_of(trace: Trace) -> Chats | None:
    """The trace's chats; None without, or if rows were cut out of the trace and left them behind."""
    chats = trace.chats
    return chats if chats is not None and len(chats) == trace.num_requests else None


def what_broke(chats: Chats, before: int, after: int) -> Found:
    """The first cause of a prefix that was not kept, by rows of the chats; both must have text.

    Order of looking: the system prompt, the tools (templates render them beside it), then the first
    message that differs; the reply and the template only if all messages are still there.
    """
    old, new = Side(chats, chats[before]), Side(chats, chats[after])
    if old.chat.is_prompt != new.chat.is_prompt:
        return Found("other_conversation")
    if old.chat.is_prompt:
        return _compare_prompts(old, new)
    index = _first_difference(old.chat.parts, new.chat.parts)
    if old.chat.tools != new.chat.tools and index >= min(old.num_system, new.num_system):
        found = compare_tools(chats.part(old.chat.tools), chats.part(new.chat.tools))
        if found.cause != "tools_changed" or _shared(old, new):
            return found
    if index == len(old.chat.parts):
        return _after_appending(old, new)
    if index == len(new.chat.parts):
        return Found("rolled_back", message_index=index)
    return _compare_histories(old, new, index)


def _compare_prompts(old: Side, new: Side) -> Found:
    before, after = old.prompt(), new.prompt()
    if before is None or after is None:
        return Found("text_not_kept")
    reply = text_of(old.chats.part(old.chat.reply))
    if reply and after.startswith(before):
        return compare_continuation(after[len(before) :], reply)
    return compare_texts(before, after)


def _after_appending(old: Side, new: Side) -> Found:
    """All messages are still there: the reply came back otherwise, or the template did it."""
    index = len(old.chat.parts)
    if old.chat.reply != NO_PART and index < len(new.chat.parts):
        found = _compare_reply(old, new, index)
        if found is not None:
            return found
    if any(has_reasoning(old.message(at)) for at in range(index)):
        return Found("reasoning_stripped_by_template", message_index=index)
    if old.chat.reply != NO_PART and index < len(new.chat.parts):
        return Found("reply_retokenised", message_index=index, role="assistant")
    return Found("template_changed", message_index=index)


def _compare_reply(old: Side, new: Side, index: int) -> Found | None:
    """None if the reply came back as it was."""
    reply, message = old.chats.part(old.chat.reply), new.message(index)
    if reply is None or message is None:
        return Found("text_not_kept", message_index=index)
    if new.role(index) != "assistant":
        return Found("reply_left_out", message_index=index, role=new.role(index))
    was = _as_sent(reply if isinstance(reply, dict) else {"content": reply})
    now = _as_sent(message)
    if was == now:
        return None
    if has_reasoning(was) and without_reasoning(was) == without_reasoning(now):
        return Found("reasoning_stripped", message_index=index, role="assistant")
    found = compare_messages(was, now, index, last=False)
    return found if found.cause != "message_edited" else found.as_cause("reply_changed")


def _as_sent(message: dict[str, Any]) -> dict[str, Any]:
    """A reply as a client sends it back: no empty fields, none that servers only return."""
    shown = {key: value for key, value in message.items() if value and key not in _RETURNED_ONLY}
    return {**shown, "role": "assistant"}


def _compare_histories(old: Side, new: Side, index: int) -> Found:
    """Some message differs, and both requests have one at this index."""
    before, after = old.message(index), new.message(index)
    if before is None or after is None:
        return Found("text_not_kept", message_index=index)
    moved = _moved(old.chat.parts[index:], new.chat.parts[index:])
    if moved is not None:
        return Found(moved, message_index=index, role=old.role(index))
    last = index == len(old.chat.parts) - 1
    found = compare_messages(before, after, index, last=last)
    if found.cause not in ("message_edited", "tool_result_edited", "system_prompt_changed"):
        return found
    replaced = _replaced(old, new, index)
    return found if replaced is None else Found(replaced, message_index=index, role=found.role)


def _moved(was: Sequence[int], now: Sequence[int]) -> str | None:
    """Whether messages were left out or put in before what is still there, unchanged."""
    if now[0] in was[1:] and _continues(was[was.index(now[0], 1) :], now):
        return "messages_dropped"
    if was[0] in now[1:] and _continues(was, now[now.index(was[0], 1) :]):
        return "message_inserted"
    return None


def _replaced(old: Side, new: Side, index: int) -> str | None:
    """Whether the history was replaced as a whole; None: a message was edited."""
    shared = _shared(old, new)
    if len(new.chat.parts) < len(old.chat.parts) and (shared or _is_summary(new)):
        return "history_compacted"
    return None if shared else _new_start(old, new)


def _shared(old: Side, new: Side) -> bool:
    """Whether any message but the system prompt is in both."""
    return not set(old.chat.parts[old.num_system :]).isdisjoint(new.chat.parts[new.num_system :])


def _new_start(old: Side, new: Side) -> str | None:
    """Nothing but the system prompt is common: another conversation, or the one message edited."""
    single = len(old.chat.parts) - old.num_system == 1
    edited = single and len(new.chat.parts) - new.num_system > 1
    return None if edited else "other_conversation"


def _is_summary(side: Side) -> bool:
    for index in range(side.num_system, min(side.num_system + 2, len(side.chat.parts))):
        text = str(side.message(index))[:_HINT_CHARS].lower()
        if any(hint in text for hint in _SUMMARY_HINTS):
            return True
    return False


def _continues(earlier: Sequence[int], later: Sequence[int]) -> bool:
    """Whether the later list starts with the earlier one."""
    return tuple(later[: len(earlier)]) == tuple(earlier)


def keepable_share(chats: Chats, before: int, after: int) -> float:
    """Share of the earlier request's text that could have been kept: what the later one has too.

    A changed system prompt and changed tools count as kept, since they could have been left alone.
    """
    old, new = Side(chats, chats[before]), Side(chats, chats[after])
    again, systems = set(new.chat.parts), old.num_system
    sizes = [chats.size(part) for part in old.chat.parts]
    kept = sum(
        size
        for index, (part, size) in enumerate(zip(old.chat.parts, sizes, strict=True))
        if index < systems or part in again
    )
    tools = chats.size(old.chat.tools)
    return (kept + tools) / (sum(sizes) + tools) if sizes else 1.0


def _first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return min(len(one), len(other))
