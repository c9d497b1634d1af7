"""What changed in the tool definitions."""

from __future__ import annotations

import json
from typing import Any

from loadkit.analysis.audit.message import Found
from loadkit.analysis.audit.texts import volatile_kind


def compare_tools(before: Any, after: Any) -> Found:
    """The cause, for two lists of tools that are not the same text; None stands for no tools.

    message_index is the first tool that differs.
    """
    old, new = before or [], after or []
    index = next((at for at, pair in enumerate(zip(old, new, strict=False)) if _differ(*pair)), 0)
    was, now = _text(old), _text(new)
    return Found(_cause(old, new, was, now), message_index=index, role="tools").at(was, now)


def _cause(old: list[Any], new: list[Any], was: str, now: str) -> str:
    if old == new:
        return "tools_key_order"
    if sorted(map(_sorted_text, old)) == sorted(map(_sorted_text, new)):
        return "tools_reordered"
    kind = volatile_kind(was, now) if len(old) == len(new) else None
    return "tools_changed" if kind is None else f"{kind}_in_tools"


def _differ(one: Any, other: Any) -> bool:
    return _text(one) != _text(other)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _sorted_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
