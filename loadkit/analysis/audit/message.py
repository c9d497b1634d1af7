"""What changed in one message, in the tool definitions, or in a prompt given as one string."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from loadkit.analysis.audit.texts import (
    Window,
    change_of,
    has_reasoning,
    role_of,
    same_but_for_whitespace,
    text_of,
    volatile_kind,
    window,
    without_reasoning,
)


@dataclass(frozen=True, slots=True)
class Found:
    """A cause (a key of CAUSES) and where it was seen. None: not known, or does not apply.

    char counts from the start of the part's text; before and after are the text around it.
    """

    cause: str
    message_index: int | None = None
    role: str | None = None
    char: int | None = None
    before_chars: int | None = None
    after_chars: int | None = None
    before: Window | None = None
    after: Window | None = None

    def as_cause(self, cause: str) -> Found:
        return replace(self, cause=cause)

    def at(self, before: str, after: str) -> Found:
        """The same with the place where two texts differ."""
        start = change_of(before, after).start
        return replace(
            self,
            char=start,
            before_chars=len(before),
            after_chars=len(after),
            before=window(before, start),
            after=window(after, start),
        )


def compare_messages(before: Any, after: Any, index: int, *, last: bool) -> Found:
    """How a message differs from what stands in its place; `last`: it ended the earlier request."""
    role = role_of(before)
    old, new = text_of(before), text_of(after)
    if old == new:
        old, new = _as_json(before), _as_json(after)
    cause = _cause(before, after, old, new, role, last)
    return Found(cause, message_index=index, role=role).at(old, new)


def compare_texts(before: str, after: str) -> Found:
    """How a prompt in one string differs from the earlier one that it should start with."""
    start = change_of(before, after).start
    if start == len(before):
        return Found("seam_retokenised").at(before, after)
    if start == len(after):
        return Found("rolled_back").at(before, after)
    return Found(_prompt_cause(before, after)).at(before, after)


def compare_continuation(added: str, reply: str) -> Found:
    """What stands where the reply should, in a prompt that goes on after the earlier one."""
    return Found(_continuation_cause(added, reply), role="assistant").at(reply, added)


def compare_tools(before: Any, after: Any) -> Found:
    """The cause, for two lists of tools that are not the same text; None stands for no tools.

    message_index is the first tool that differs.
    """
    old, new = before or [], after or []
    index = next(
        (
            at
            for at, pair in enumerate(zip(old, new, strict=False))
            if _as_json(pair[0]) != _as_json(pair[1])
        ),
        0,
    )
    was, now = _as_json(old), _as_json(new)
    return Found(_tools_cause(old, new, was, now), message_index=index, role="tools").at(was, now)


def _tools_cause(old: list[Any], new: list[Any], was: str, now: str) -> str:
    if old == new:
        return "tools_key_order"
    if sorted(map(_sorted_text, old)) == sorted(map(_sorted_text, new)):
        return "tools_reordered"
    kind = volatile_kind(was, now) if len(old) == len(new) else None
    return "tools_changed" if kind is None else f"{kind}_in_tools"


def _continuation_cause(added: str, reply: str) -> str:
    if added.startswith(reply):
        return "reply_retokenised"
    visible: str = without_reasoning(reply)
    if visible and visible != reply.strip() and added.lstrip().startswith(visible):
        return "reasoning_stripped"
    bare, bare_reply = "".join(added.split()), "".join(reply.split())
    if bare.startswith(bare_reply):
        return "whitespace"
    # Role marks may stand between the prompt and the reply.
    if reply.strip() in added[: len(reply) + _TAIL]:
        return "seam_retokenised"
    same = change_of(reply, added).start
    return "reply_changed" if same >= min(_TAIL, len(reply) / 2) else "reply_left_out"


def _cause(before: Any, after: Any, old: str, new: str, role: str | None, last: bool) -> str:
    system = role in ("system", "developer")
    if role_of(after) != role:
        return "system_prompt_changed" if system else "message_edited"
    if has_reasoning(before) and without_reasoning(before) == without_reasoning(after):
        return "reasoning_stripped"
    if _same_json(before, after):
        return "tool_call_reformatted"
    kind = volatile_kind(old, new)
    if kind is not None:
        return f"{kind}_in_{'system_prompt' if system else 'message'}"
    if text_of(before) != text_of(after) and same_but_for_whitespace(old, new):
        return "whitespace"
    if system:
        return "system_prompt_changed"
    if role in ("tool", "function"):
        return "tool_result_edited"
    return "injected_text_dropped" if _lost_a_part(old, new, last) else "message_edited"


# Characters at a prompt's end by which its shifted text is known again.
_TAIL = 200


def _prompt_cause(before: str, after: str) -> str:
    kind = volatile_kind(before, after, goes_on=True)
    if kind is not None:
        return f"{kind}_in_prompt"
    if _starts_with_visible(before, after):
        return "reasoning_stripped"
    if "".join(after.split()).startswith("".join(before.split())):
        return "whitespace"
    tail = before[-_TAIL:]
    if len(before) > 2 * _TAIL and tail in after and after.index(tail) < len(before) - _TAIL:
        return "messages_dropped"
    return "prompt_edited"


def _starts_with_visible(before: str, after: str) -> bool:
    visible: str = without_reasoning(before)
    return visible != before.strip() and after.startswith(visible)


def _lost_a_part(old: str, new: str, last: bool) -> bool:
    """The newest message had text around what is left of it in the history."""
    return last and 0 < len(new.strip()) < len(old) and new.strip() in old


def _same_json(before: Any, after: Any) -> bool:
    try:
        return bool(_parsed(before) == _parsed(after))
    except RecursionError:
        return False


def _parsed(value: Any) -> Any:
    """The value with JSON inside strings (tool call arguments) read, so that only form differs."""
    if isinstance(value, dict):
        return {key: _arguments(key, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_parsed(item) for item in value]
    return value


def _arguments(key: str, value: Any) -> Any:
    if key != "arguments" or not isinstance(value, str):
        return _parsed(value)
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _sorted_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
