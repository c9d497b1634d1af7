"""What of a chat message makes it the same message: the reply as sent, and as a client echoes it."""

from __future__ import annotations

from typing import Any

# A server sends them with a reply, or a client library keeps them; templates do not read them back.
NOT_HISTORY = frozenset(
    {"reasoning", "reasoning_content", "refusal", "annotations", "audio", "function_call", "parsed"}
)
NOTHING: tuple[Any, ...] = (None, "", [])


def canonical(message: Any) -> Any:
    """The message without what says nothing (null, "" and []), a reply without what no client echoes.

    Anything that is no object stays as it is: the server behind will say what is wrong with it.
    """
    if not isinstance(message, dict):
        return message
    is_reply = message.get("role") == "assistant"
    kept = {
        key: value
        for key, value in message.items()
        if value not in NOTHING and not (is_reply and key in NOT_HISTORY)
    }
    if is_reply and isinstance(kept.get("tool_calls"), list):
        kept["tool_calls"] = [tool_call(call) for call in kept["tool_calls"]]
    return kept


def tool_call(call: Any) -> Any:
    """Id, name and arguments, whatever else stands around them (such as a stream's index)."""
    if not isinstance(call, dict) or not isinstance(call.get("function"), dict):
        return call
    function = call["function"]
    return {
        "id": call.get("id"),
        "function": {"name": function.get("name"), "arguments": function.get("arguments")},
    }
