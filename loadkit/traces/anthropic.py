"""Anthropic Messages API bodies, one a line, as the chat messages that a served model's template takes.

The mapping is vLLM's and SGLang's for their own /v1/messages: the blocks of `system` joined are the
first message, text blocks stay content parts, `tool_use` is a tool call, `tool_result` a message of
the role `tool` before what else its message says, `thinking` is `reasoning_content`. Counts are those
of the given tokenizer; the provider's own is not public. `cache_control` changes no token.

`metadata.user_id` is documented as the name of a user, so it is not taken for a session. Optional
keys beside the body: timestamp (seconds), session_id, request_id, cache_salt, lora, response.
`response` is a message object, `{"content": ...}`, or loadkit's short form (see `openai`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import msgspec

from loadkit.traces.gaps import SAMPLING
from loadkit.traces.lines import Place
from loadkit.traces.reading import Length, Reading
from loadkit.traces.texts import Logged, Message, Short, TextRequest, reply_of

NAME = "anthropic"
# A client's note to the provider, other in every request; vLLM leaves it out of the prompt.
_BILLING = "x-anthropic-billing-header"
_OWN_BLOCKS = frozenset(("tool_use", "tool_result", "thinking", "redacted_thinking", "document"))
_OWN_KEYS = ("system", "anthropic_version", "anthropic_beta")


class Source(msgspec.Struct):
    """Where an image or a document is: in the row, at a URL, or in a file of the provider."""

    type: str = ""
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    content: Any = None


class Block(msgspec.Struct):
    """One content block; `other` types keep nothing but their type."""

    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None
    tool_use_id: str | None = None
    content: Any = None
    source: Any = None
    title: str | None = None
    context: str | None = None


class Said(msgspec.Struct):
    """One message."""

    role: str
    content: str | list[Block]


class Tool(msgspec.Struct):
    """A tool of the client's, or one of the provider's own, which has a `type` and no schema."""

    name: str
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class Usage(msgspec.Struct):
    """The provider's token counts: three parts of the prompt."""

    input_tokens: Length | None = None
    cache_read_input_tokens: Length | None = None
    cache_creation_input_tokens: Length | None = None


class Response(Short):
    """A message object, or the short form."""

    content: str | list[Block] | None = None
    stop_reason: str | None = None
    usage: Usage | None = None


class Row(Logged, kw_only=True):
    """A body with what the log says around it."""

    LOOK_INSIDE: ClassVar[bool] = True
    NO_TEXT: ClassVar[frozenset[str]] = SAMPLING | {
        "anthropic_beta",
        "anthropic_version",
        "betas",
        "container",
        "context_management",
        "diagnostics",
        "inference_geo",
        "output_config",
        "output_format",
        "speed",
        "thinking",
    }

    messages: list[Said]
    system: str | list[Block] | None = None
    tools: list[Tool] | None = None
    mcp_servers: list[Any] | None = None
    max_tokens: Any = None
    response: Response | None = None


def matches(row: dict[str, Any]) -> bool:
    """Whether a row has what only this API has; one of plain messages might be of either."""
    messages = row.get("messages")
    if not isinstance(messages, list):
        return False
    if any(row.get(key) for key in _OWN_KEYS) and "conversations" not in row:
        return True
    tools, response = row.get("tools"), row.get("response")
    if isinstance(tools, list) and any("input_schema" in tool for tool in _objects(tools)):
        return True
    if isinstance(response, dict) and isinstance(response.get("content"), list):
        return True
    return any(_is_own(block) for said in _objects(messages) for block in _objects(said["content"]))


def requests(reading: Reading) -> Iterator[tuple[Place, TextRequest]]:
    """The log's requests, one a row."""
    for place, row in reading.rows(Row):
        with reading.row():
            request = row.request(messages=_messages(place, row, reading))
            request.tools = _tools(place, row, reading)
            request.max_tokens = row.max_tokens if isinstance(row.max_tokens, int) else None
            if row.response is not None:
                _add_response(place, request, row.response, reading)
            yield place, request


def _objects(values: Any) -> Iterator[dict[str, Any]]:
    for value in values if isinstance(values, list) else ():
        if isinstance(value, dict):
            yield {"content": None, **value}


def _is_own(block: dict[str, Any]) -> bool:
    kind = block.get("type")
    return kind in _OWN_BLOCKS or (kind == "image" and isinstance(block.get("source"), dict))


def _messages(place: Place, row: Row, reading: Reading) -> list[Message]:
    out: list[Message] = []
    if row.system:
        out.append({"role": "system", "content": _system(place, row.system, reading)})
    for said in row.messages:
        if said.role not in ("user", "assistant", "system"):
            raise place.error(
                f"a message has the role {said.role[:40]!r}, which Anthropic's API does not know",
                "OpenAI's messages are read with --format openai",
            )
        if isinstance(said.content, str):
            out.append({"role": said.role, "content": said.content})
        else:
            out += _said(place, said.role, said.content, reading)
    return out


def _system(place: Place, system: str | list[Block], reading: Reading) -> str:
    if isinstance(system, str):
        return system
    texts = []
    for block in system:
        if block.type != "text" or block.text is None:
            raise place.error(f"`system` has a block of type {block.type[:40]!r}, which is no text")
        if block.text.startswith(_BILLING):
            reading.gaps.parts(place, f"`{_BILLING}` lines, which servers of other models drop,")
        else:
            texts.append(block.text)
    return "".join(texts)


def _said(place: Place, role: str, blocks: list[Block], reading: Reading) -> list[Message]:
    """A message of blocks: the results of tools in it, then what else it says."""
    results: list[Message] = []
    message: Message = {"role": role}
    parts: list[Message] = []
    for block in blocks:
        if block.type == "text":
            parts.append({"type": "text", "text": block.text or ""})
        elif block.type == "thinking":
            before = message.get("reasoning_content", "")
            message["reasoning_content"] = before + (block.thinking or "")
        elif block.type == "tool_use":
            message.setdefault("tool_calls", []).append(_call(place, block))
        elif block.type == "tool_result":
            results += _result(place, block)
        elif block.type == "redacted_thinking":
            reading.gaps.parts(place, "redacted thinking blocks")
        else:
            parts += _part(place, block)
    if parts or len(message) > 1 or not results:
        results.append({**message, "content": _plain(parts)})
    return results


def _plain(parts: list[Message]) -> str | list[Message]:
    """One text as it is; several parts as parts."""
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _call(place: Place, block: Block) -> Message:
    function = {"name": block.name or "", "arguments": as_json(place, block.input or {})}
    return {"type": "function", "id": block.id or "", "function": function}


def _result(place: Place, block: Block) -> list[Message]:
    """The message of the role `tool`; what is no text in it follows as a user's, as vLLM has it."""
    parts = _blocks(place, block.content)
    texts = [part.text or "" for part in parts if part.type == "text"]
    told = {"role": "tool", "tool_call_id": block.tool_use_id or "", "content": "\n".join(texts)}
    others = [one for part in parts if part.type != "text" for one in _part(place, part)]
    return [told, {"role": "user", "content": others}] if others else [told]


def _part(place: Place, block: Block) -> list[Message]:
    """A block that is no text as OpenAI's API has it; the text of documents that hold some."""
    if block.type == "search_result":
        return [{"type": "text", "text": one.text or ""} for one in _blocks(place, block.content)]
    if block.type not in ("image", "document"):
        return [{"type": block.type}]
    source = _converted(place, block.source or {}, Source)
    if block.type == "image":
        return [{"type": "image_url", "image_url": {"url": _url(source)}}]
    told = [text for text in (block.title, block.context) if text]
    if source.type == "text":
        return [{"type": "text", "text": "\n".join([*told, source.data or ""])}]
    if source.type == "content":
        inner = [{"type": "text", "text": text} for text in told]
        for one in _blocks(place, source.content):
            text = {"type": "text", "text": one.text or ""}
            inner += [text] if one.type == "text" else _part(place, one)
        return inner
    file = {"file_id": source.file_id} if source.file_id else {"file_data": _url(source)}
    return [{"type": "file", "file": file}]


def _url(source: Source) -> str:
    return source.url or f"data:{source.media_type or 'image/jpeg'};base64,{source.data or ''}"


def _blocks(place: Place, content: Any) -> Sequence[Block]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (Block("text", text=content),)
    blocks: list[Block] = _converted(place, content, list[Block])
    return blocks


def _converted(place: Place, value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise place.error(f"a content block does not fit the format: {error}") from error


def _tools(place: Place, row: Row, reading: Reading) -> list[Message] | None:
    for _ in row.mcp_servers or ():
        reading.gaps.parts(place, "tool definitions of MCP servers")
    out = []
    for tool in row.tools or ():
        if tool.input_schema is None:
            reading.gaps.parts(place, "definitions of the provider's own tools")
            continue
        function = {"name": tool.name}
        if tool.description is not None:
            function["description"] = tool.description
        out.append({"type": "function", "function": {**function, "parameters": tool.input_schema}})
    return out or None


def _add_response(place: Place, request: TextRequest, response: Response, reading: Reading) -> None:
    request.latency_s = response.latency_s
    usage = response.usage or Usage()
    if usage.input_tokens is not None:
        more = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
        request.usage_tokens = usage.input_tokens + more
    content, ids = response.content, response.token_ids
    if content is None and ids is None:
        return
    said: list[Message] = [{"role": "assistant", "content": content}]
    if isinstance(content, list):
        said = _said(place, "assistant", content, reading)
    reason = "length" if response.stop_reason == "max_tokens" else response.stop_reason
    request.reply = reply_of(said, ids, response.finish_reason or reason)


def as_json(place: Place, value: Any) -> str:
    """A value as JSON text, as tool calls carry their arguments."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise place.error("the arguments of a tool call cannot be written as JSON") from error
