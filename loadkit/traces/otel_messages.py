"""OpenTelemetry's messages, made of parts, as the messages that a chat template takes."""

from __future__ import annotations

from typing import Any

import msgspec

from loadkit.traces.lines import Place
from loadkit.traces.texts import Reply


class Part(msgspec.Struct):
    """One part of a message: text, reasoning, tool_call or tool_call_response."""

    type: str = "text"
    content: Any = None
    id: str | None = None
    name: str | None = None
    arguments: Any = None
    response: Any = None
    result: Any = None


class OtelMessage(msgspec.Struct):
    """A message; finish_reason is there on output messages only."""

    role: str
    parts: list[Part] = []
    finish_reason: str | None = None


class Definition(msgspec.Struct):
    """A tool that the request offered."""

    name: str | None = None
    description: str | None = None
    parameters: Any = None
    function: dict[str, Any] | None = None


def chat_message(place: Place, message: OtelMessage) -> dict[str, Any]:
    """The message for a template. FormatError for a part that is not text (an image, a blob)."""
    chat: dict[str, Any] = {"role": message.role, "content": ""}
    for part in message.parts:
        if part.type == "text":
            chat["content"] += _text(part.content)
        elif part.type == "reasoning":
            chat["reasoning_content"] = chat.get("reasoning_content", "") + _text(part.content)
        elif part.type == "tool_call":
            chat.setdefault("tool_calls", []).append(_tool_call(part))
        elif part.type == "tool_call_response":
            answer = part.response if part.response is not None else part.result
            chat["content"] += _text(answer)
            chat["tool_call_id"] = part.id or ""
        else:
            raise place.error(f"a message has a part of type {part.type[:40]!r}, which is no text")
    return chat


def reply_of(place: Place, messages: list[OtelMessage] | None) -> Reply | None:
    """The reply; None if it is not logged, has several choices, or is more than text."""
    if messages is None or len(messages) != 1:
        return None
    chat = chat_message(place, messages[0])
    if "tool_calls" in chat or "reasoning_content" in chat:
        return None
    return Reply(chat["content"], finish_reason=messages[0].finish_reason, message=chat)


def tool_of(definition: Definition) -> dict[str, Any]:
    """The tool as an OpenAI request lists it."""
    if definition.function is not None:
        return {"type": "function", "function": definition.function}
    function = {
        "name": definition.name,
        "description": definition.description,
        "parameters": definition.parameters,
    }
    return {
        "type": "function",
        "function": {key: value for key, value in function.items() if value is not None},
    }


def _tool_call(part: Part) -> dict[str, Any]:
    function = {"name": part.name or "", "arguments": part.arguments}
    return {"type": "function", "id": part.id or "", "function": function}


def _text(value: Any) -> str:
    """Text as it is, nothing as empty text, anything else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
