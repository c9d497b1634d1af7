"""Request bodies of the three APIs: OpenAI chat, OpenAI completions, Anthropic-style messages.

Flags that only some servers know are in a body only when they are asked for: others refuse a
request with a field that they do not know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson

from loadkit.client.foreign import Malformed, read_json

CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"
MESSAGES_PATH = "/v1/messages"

Api = Literal["chat", "completions", "messages"]
MaxTokensField = Literal["max_tokens", "max_completion_tokens"]
Body = dict[str, Any]


def request_body(
    api: Api,
    *,
    model: str,
    max_tokens: int,
    messages: Sequence[Mapping[str, Any]] = (),
    prompt: str | Sequence[int] | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
    temperature: float = 0.0,
    exact_output: bool = False,
    ignore_eos: bool = False,
    return_token_ids: bool = False,
    cache_salt: str | None = None,
    max_tokens_field: MaxTokensField = "max_tokens",
    ask_usage: bool = True,
) -> tuple[str, Body]:
    """(path, body) of a streamed request; with usage, unless `ask_usage` is False for a server that
    refuses `stream_options`.

    prompt: text or token ids for completions; None joins the messages' texts with blank lines, so
    that a history which grows gives a prompt that grows. exact_output: ignore_eos and min_tokens
    (vLLM, SGLang, loadkit's server). max_tokens_field: under which name chats ask for `max_tokens`;
    OpenAI's newer models take the longer one alone. The Anthropic API has none of `exact_output` and
    what follows it: left out there.
    """
    body: Body = {
        "model": model,
        max_tokens_field if api == "chat" else "max_tokens": max_tokens,
        "temperature": temperature,
        "stream": True,
    }
    if api == "messages":
        return MESSAGES_PATH, body | _anthropic(messages, tools)
    if ask_usage:
        body["stream_options"] = {"include_usage": True}
    if exact_output or ignore_eos:
        body["ignore_eos"] = True
    if exact_output:
        body["min_tokens"] = max_tokens
    if return_token_ids:
        body["return_token_ids"] = True
    if cache_salt is not None:
        body["cache_salt"] = cache_salt
    if api == "completions":
        return COMPLETIONS_PATH, body | {"prompt": _prompt(messages, prompt)}
    body["messages"] = list(messages)
    if tools:
        body["tools"] = list(tools)
    return CHAT_PATH, body


def _prompt(
    messages: Sequence[Mapping[str, Any]], prompt: str | Sequence[int] | None
) -> str | list[int]:
    if prompt is None:
        return "\n\n".join(_text(message) for message in messages)
    return prompt if isinstance(prompt, str) else list(prompt)


def _text(message: Mapping[str, Any]) -> str:
    """The text of a message: a string, or the text parts of a list of parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part.get("text") or "" for part in parts if isinstance(part, Mapping))


def _anthropic(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> Body:
    """OpenAI messages and tools as the Anthropic API has them: the system prompt stands apart, a
    tool's call and its result are blocks, and results travel in the user's turn."""
    system = [_text(m) for m in messages if m.get("role") in ("system", "developer")]
    body: Body = {"messages": _anthropic_turns(messages)}
    if system:
        body["system"] = "\n\n".join(system)
    if tools:
        body["tools"] = [_anthropic_tool(tool) for tool in tools]
    return body


def _anthropic_turns(messages: Sequence[Mapping[str, Any]]) -> list[Body]:
    turns: list[Body] = []
    for message in messages:
        role = message.get("role")
        if role == "tool":
            block = {
                "type": "tool_result",
                "tool_use_id": message.get("tool_call_id") or "",
                "content": _text(message),
            }
            if turns and turns[-1]["role"] == "user" and isinstance(turns[-1]["content"], list):
                turns[-1]["content"].append(block)  # results of parallel calls stand together
            else:
                turns.append({"role": "user", "content": [block]})
        elif role not in ("system", "developer"):
            turns.append({"role": role, "content": _anthropic_content(message)})
    return turns


def _anthropic_content(message: Mapping[str, Any]) -> str | list[Body]:
    calls = message.get("tool_calls")
    if not calls:
        return _text(message)
    text = _text(message)
    blocks: list[Body] = [{"type": "text", "text": text}] if text else []
    return blocks + [_anthropic_call(call) for call in calls]


def _anthropic_call(call: Mapping[str, Any]) -> Body:
    function = call.get("function") or {}
    return {
        "type": "tool_use",
        "id": call.get("id") or "",
        "name": function.get("name") or "",
        "input": _arguments(function.get("arguments")),
    }


def _arguments(text: Any) -> Any:
    """A call's arguments as an object. What a model wrote may be no JSON, or none that can be sent (too
    deep, a number of too many digits): kept as one string."""
    try:
        value = read_json(text.encode()) if isinstance(text, str) else None
        orjson.dumps(value)
    except (Malformed, orjson.JSONEncodeError, UnicodeEncodeError):
        value = None
    return value if isinstance(value, dict) else {"arguments": text or ""}


def _anthropic_tool(tool: Mapping[str, Any]) -> Body:
    function = tool.get("function") or tool
    converted = {
        "name": function.get("name") or "",
        "input_schema": function.get("parameters")
        or function.get("input_schema")
        or {"type": "object"},
    }
    if function.get("description"):
        converted["description"] = function["description"]
    return converted
