"""OpenAI Responses API bodies, one a line, as the chat messages that a served model's template takes.

The mapping is vLLM's for its own /v1/responses: `instructions` is the system message; `function_call`
items are tool calls of the assistant's message before, `function_call_output` is a message of the
role `tool`, `reasoning` is `reasoning_content` (its text, else its summary).

`previous_response_id`: the turns before are not in the body. They are taken from the row of this log
whose `response.id` it is, without its instructions, which do not carry over, and without reasoning.
Where no earlier row has it, the row's prompt is short by them, and a warning says so; the same goes
for `conversation`, `prompt` (a template kept by the provider) and `item_reference`.

Optional keys beside the body: timestamp (seconds), session_id, request_id, cache_salt, lora, response.
`response` is a Response object (`id`, `output`, `usage`) or loadkit's short form (see `openai`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import msgspec

from loadkit.core.chats import part_text
from loadkit.traces.gaps import SAMPLING, unknown_inside
from loadkit.traces.lines import Place
from loadkit.traces.reading import Length, Name, Reading
from loadkit.traces.texts import Logged, Message, Short, TextRequest, reply_of

NAME = "responses"


class Item(msgspec.Struct):
    """One item of `input` or `output`; a message needs no type."""

    type: str | None = None
    id: str | None = None
    role: str | None = None
    content: str | list[Any] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: Any = None
    input: Any = None
    output: Any = None
    summary: list[Any] | None = None
    encrypted_content: str | None = None


class Usage(msgspec.Struct):
    """The server's token counts."""

    input_tokens: Length | None = None


class Response(Short):
    """A Response object, or the short form."""

    id: str | None = None
    content: str | None = None
    output: list[Item] | None = None
    usage: Usage | None = None


class Body(Logged):
    """A body alone, as batch files hold it."""

    LOOK_INSIDE: ClassVar[bool] = True
    NO_TEXT: ClassVar[frozenset[str]] = SAMPLING | {
        "background",
        "context_management",
        "include",
        "prompt_cache_key",
        "reasoning",
        "text",
        "truncation",
    }

    input: str | list[Item] | None = None
    instructions: str | list[Item] | None = None
    tools: list[Message] | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    max_output_tokens: Any = None
    output: Any = None


class Row(Body):
    """A body with what the log says around it."""

    response: Response | None = None
    response_id: str | None = None


def matches(row: dict[str, Any]) -> bool:
    """Whether a row looks like this format."""
    if "messages" in row or "hash_ids" in row or isinstance(row.get("output"), str):
        return False
    given, prompt = row.get("input"), row.get("prompt")
    if isinstance(prompt, str | list):
        return False
    return isinstance(given, str | list) or (
        "previous_response_id" in row and isinstance(row.get("instructions", ""), str)
    )


class Conversations:
    """Reads the bodies, and keeps what each response was given and gave, for rows that continue it."""

    def __init__(self) -> None:
        self._past: dict[str, tuple[str | None, list[Message]]] = {}
        self._no_reply: set[str] = set()  # responses of whose reply the log has no text
        self._items: dict[str, Item] = {}

    def requests(self, reading: Reading) -> Iterator[tuple[Place, TextRequest]]:
        """The log's requests, one a row."""
        for place, row in reading.rows(Row):
            with reading.row():
                request = self.request_of(place, row, reading)
                if row.response is not None:
                    _add_response(place, request, row.response, reading)
                self._keep(place, row, reading)
                yield place, request

    def request_of(self, place: Place, body: Body, reading: Reading) -> TextRequest:
        """The request that a body makes. FormatError for one that holds no input at all."""
        if isinstance(body.input, str) and isinstance(body.output, str):
            raise place.error(
                "`input` and `output` are text, as in LMCache's traces", "--format lmcache"
            )
        if isinstance(body.prompt, str | list):
            raise place.error("`prompt` is text, as in completions", "--format openai")
        if body.input is None and body.previous_response_id is None and body.prompt is None:
            raise place.error("the row has no `input`")
        told = [] if body.instructions is None else _instructions(place, body.instructions, reading)
        past, missing = self._before(body)
        messages = [*told, *past, *self._given(place, body, reading, missing)]
        request = body.request(messages=messages)
        request.missing = tuple(missing)
        request.tools = _tools(place, body.tools or (), reading)
        asked = body.max_output_tokens
        request.max_tokens = asked if isinstance(asked, int) and asked > 0 else None
        if request.session is None:
            request.session = _name_of(body.conversation)
        return request

    def _before(self, body: Body) -> tuple[list[Message], list[str]]:
        """The earlier turns, oldest first, and what of them is not in the log."""
        missing = []
        turns: list[list[Message]] = []
        at, seen = body.previous_response_id, set[str]()
        while at is not None:
            if at not in self._past or at in seen:
                missing.append("the earlier turns of `previous_response_id`")
                break
            seen.add(at)
            if at in self._no_reply:
                missing.append("a reply of the turns before `previous_response_id`")
            at, said = self._past[at]
            turns.append(said)
        if body.conversation is not None:
            missing.append("the earlier items of `conversation`")
        if body.prompt is not None:
            missing.append("the text of the template that `prompt` names")
        return [message for said in reversed(turns) for message in said], missing

    def _given(
        self, place: Place, body: Body, reading: Reading, missing: list[str]
    ) -> list[Message]:
        if isinstance(body.input, str):
            return [{"role": "user", "content": body.input}]
        items = []
        for item in body.input or ():
            if item.type == "item_reference" or (item.type is None and item.role is None):
                known = self._items.get(item.id or "")
                if known is None and item.id is None:
                    raise place.error("an item of `input` has neither type nor role")
                if known is None:
                    missing.append("an item that `item_reference` names")
                    continue
                item = known
            items.append(item)
        return messages_of(place, items, reading)

    def _keep(self, place: Place, row: Row, reading: Reading) -> None:
        name = row.response_id or (row.response.id if row.response else None)
        if name is None:
            return
        said = self._given(place, row, Reading(()), [])
        output = (row.response.output if row.response else None) or []
        if output:
            thought = [item for item in output if item.type != "reasoning"]
            said += messages_of(place, thought, Reading(()))
        elif row.response is not None and row.response.content is not None:
            said.append({"role": "assistant", "content": row.response.content})
        else:
            self._no_reply.add(name)
        self._past[name] = row.previous_response_id, said
        given = row.input if isinstance(row.input, list) else []
        self._items.update((item.id, item) for item in [*given, *output] if item.id and item.type)


def messages_of(place: Place, items: Sequence[Item], reading: Reading) -> list[Message]:
    """Items as chat messages: what one reply consists of is one message of the assistant's."""
    out: list[Message] = []
    for item in items:
        kind = item.type or "message"
        if kind == "message":
            _add_message(place, out, item)
        elif kind in ("function_call", "custom_tool_call"):
            arguments = item.arguments if kind == "function_call" else item.input
            function = {"name": item.name or "", "arguments": _text_of(place, arguments)}
            call = {"type": "function", "id": item.call_id or "", "function": function}
            _assistant(out).setdefault("tool_calls", []).append(call)
        elif kind in ("function_call_output", "custom_tool_call_output"):
            if item.output is None:
                raise place.error(f"an item of type `{kind}` has no `output`")
            content = _content(place, item.output)
            out.append({"role": "tool", "tool_call_id": item.call_id or "", "content": content})
        elif kind == "reasoning":
            _add_reasoning(place, out, item, reading)
        else:
            reading.gaps.parts(place, f"items of type `{kind[:40]}`")
    for message in out:
        message.setdefault("content", "")
    return out


def _add_message(place: Place, out: list[Message], item: Item) -> None:
    if item.role is None:
        raise place.error("a message of `input` has no role")
    content = _content(place, item.content)
    before = out[-1] if out else {}
    if item.role == "assistant" and before.get("role") == "assistant" and "content" not in before:
        before["content"] = content
    else:
        out.append({"role": item.role, "content": content})


def _add_reasoning(place: Place, out: list[Message], item: Item, reading: Reading) -> None:
    parts = item.content if isinstance(item.content, list) and item.content else item.summary
    texts = [part.get("text") for part in parts or () if isinstance(part, dict)]
    text = "".join(text for text in texts if isinstance(text, str))
    if isinstance(item.content, str):
        text = item.content
    if text:
        _assistant(out, "reasoning_content")["reasoning_content"] = text
    elif item.encrypted_content:
        reading.gaps.parts(place, "encrypted reasoning items")


def _assistant(out: list[Message], without: str = "") -> Message:
    """The assistant's message at the end, a new one if there is none that may be added to."""
    if not out or out[-1]["role"] != "assistant" or without in out[-1]:
        out.append({"role": "assistant"})
    return out[-1]


def _content(place: Place, content: Any) -> str | list[Message]:
    """Content for a chat message; parts that are not text under the names of chat completions."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise place.error("content is neither text nor a list of parts")
    parts = [_part(place, part) for part in content]
    return parts[0]["text"] if len(parts) == 1 and parts[0].keys() == {"type", "text"} else parts


def _part(place: Place, part: Any) -> Message:
    text = part_text(part)
    if text is not None:  # with what nobody understands, so that it is named
        odd = unknown_inside(part, ("text",)) if isinstance(part, dict) else []
        return {"type": "text", "text": text, **{key: part[key] for key in odd}}
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise place.error("a content part has no type")
    if part["type"] == "input_image":
        url = part.get("image_url") or f"file:{part.get('file_id')}"
        return {"type": "image_url", "image_url": url if isinstance(url, dict) else {"url": url}}
    if part["type"] == "input_file":
        return {"type": "file", "file": {key: part[key] for key in part if key != "type"}}
    return part


def _instructions(place: Place, told: str | list[Item], reading: Reading) -> list[Message]:
    if isinstance(told, str):
        return [{"role": "system", "content": told}]
    return messages_of(place, told, reading)


def _tools(place: Place, tools: Sequence[Message], reading: Reading) -> list[Message] | None:
    """Flat tools as chat completions nest them. Tools of the provider's have no text in the log."""
    out = []
    for tool in tools:
        kind = tool.get("type", "function")
        if kind != "function":
            reading.gaps.parts(place, f"tools of type `{str(kind)[:40]}`")
        elif isinstance(tool.get("function"), dict):
            out.append(tool)
        else:
            told = {key: tool[key] for key in tool if key != "type" and tool[key] is not None}
            out.append({"type": "function", "function": told})
    return out or None


def _text_of(place: Place, value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    raise place.error("the arguments of a call are no text")


def _name_of(conversation: Any) -> Name | None:
    name = conversation.get("id") if isinstance(conversation, dict) else conversation
    return name if isinstance(name, str) else None


def _add_response(place: Place, request: TextRequest, response: Response, reading: Reading) -> None:
    request.latency_s = response.latency_s
    request.usage_tokens = response.usage.input_tokens if response.usage else None
    said: list[Message] = []
    if response.content is not None:
        said = [{"role": "assistant", "content": response.content}]
    if response.output is not None:
        said = messages_of(place, response.output, reading)
        if any(
            item.type == "reasoning" for item in response.output
        ):  # shown or not, it was computed
            said = []
    if said or response.token_ids is not None:
        request.reply = reply_of(said, response.token_ids, response.finish_reason)
