"""Gemini generateContent bodies, one a line, as the chat messages that a served model's template takes.

`systemInstruction` is the system message, the role `model` is the assistant, `functionCall` is a tool
call, `functionResponse` a message of the role `tool` (its `output` or `result` if that is all and is
text, else its JSON), text with `thought` is `reasoning_content`. Names may be written as in
`systemInstruction` or `system_instruction`. Counts are those of the given tokenizer; the provider's
own is not public. `cachedContent` names text that is not in the log: a warning says so.

Optional keys beside the body: timestamp (seconds), session_id, request_id, cache_salt, lora, response.
`response` is a GenerateContentResponse (`candidates`, `usageMetadata`) or loadkit's short form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import msgspec

from loadkit.traces.anthropic import as_json
from loadkit.traces.gaps import SAMPLING, holds_text
from loadkit.traces.lines import Place
from loadkit.traces.reading import Length, Reading
from loadkit.traces.texts import Logged, Message, Short, TextRequest, reply_of

NAME = "gemini"
_ROLES = {"user": "user", "model": "assistant", "function": "user", "tool": "user"}
_DECLARED = frozenset(
    (
        *("name", "description", "parameters", "behavior"),
        *("parametersJsonSchema", "parameters_json_schema"),
    )
)
# What a function answers, where it is that and nothing else.
_ANSWERS = ("output", "result")


class Call(msgspec.Struct):
    """A call of a function."""

    name: str
    args: Any = None
    id: str | None = None


class Answer(msgspec.Struct):
    """What a function answered."""

    name: str = ""
    response: Any = None
    id: str | None = None


class Media(msgspec.Struct):
    """Bytes in base64, or a file's address."""

    mimeType: str | None = None
    mime_type: str | None = None
    data: str | None = None
    fileUri: str | None = None
    file_uri: str | None = None


class Part(msgspec.Struct):
    """One part of a content."""

    text: str | None = None
    thought: bool | None = None
    functionCall: Call | None = None
    function_call: Call | None = None
    functionResponse: Answer | None = None
    function_response: Answer | None = None
    inlineData: Media | None = None
    inline_data: Media | None = None
    fileData: Media | None = None
    file_data: Media | None = None


class Content(msgspec.Struct):
    """One turn; without a role it is the user's."""

    parts: list[Part] | None = None
    role: str | None = None


class Tools(msgspec.Struct):
    """Declarations of functions; other keys are tools of the provider's own."""

    functionDeclarations: list[dict[str, Any]] | None = None
    function_declarations: list[dict[str, Any]] | None = None


class Candidate(msgspec.Struct):
    """One reply."""

    content: Content | None = None
    finishReason: str | None = None


class Usage(msgspec.Struct):
    """The provider's token counts."""

    promptTokenCount: Length | None = None


class Response(Short):
    """A GenerateContentResponse, or the short form."""

    content: str | None = None
    candidates: list[Candidate] | None = None
    usageMetadata: Usage | None = None


class Row(Logged, kw_only=True):
    """A body with what the log says around it."""

    LOOK_INSIDE: ClassVar[bool] = True
    NO_TEXT: ClassVar[frozenset[str]] = SAMPLING | {
        "safetySettings",
        "safety_settings",
        "toolConfig",
        "tool_config",
    }

    contents: list[Content]
    systemInstruction: str | Content | None = None
    system_instruction: str | Content | None = None
    tools: list[dict[str, Any]] | None = None
    cachedContent: str | None = None
    cached_content: str | None = None
    generationConfig: Any = None
    generation_config: Any = None
    response: Response | None = None


def matches(row: dict[str, Any]) -> bool:
    """Whether a log's first row looks like this format."""
    return isinstance(row.get("contents"), list) and "messages" not in row


def requests(reading: Reading) -> Iterator[tuple[Place, TextRequest]]:
    """The log's requests, one a row."""
    for place, row in reading.rows(Row):
        with reading.row():
            request = row.request(messages=_messages(place, row, reading))
            request.tools = _tools(place, row, reading)
            request.max_tokens = _asked(row.generationConfig or row.generation_config)
            if row.cachedContent or row.cached_content:
                request.missing = ("the text that `cachedContent` names",)
            if row.response is not None:
                _add_response(place, request, row.response, reading)
            yield place, request


def _messages(place: Place, row: Row, reading: Reading) -> list[Message]:
    out: list[Message] = []
    told = row.systemInstruction or row.system_instruction
    if row.systemInstruction and row.system_instruction:
        reading.gaps.field(place, "system_instruction")  # beside one in the other spelling
    if isinstance(told, str):
        out.append({"role": "system", "content": told})
    elif told is not None:
        texts = [part.text for part in told.parts or ()]
        if None in texts:
            raise place.error("the system instruction has a part that is no text")
        out.append({"role": "system", "content": "".join(text or "" for text in texts)})
    for content in row.contents:
        role = _ROLES.get(content.role or "user")
        if role is None:
            raise place.error(f"a content has the role {(content.role or '')[:40]!r}")
        out += _turn(place, role, content.parts or (), reading)
    return out


def _turn(place: Place, role: str, parts: Sequence[Part], reading: Reading) -> list[Message]:
    """A turn: the answers of functions in it, then what else it says."""
    answers: list[Message] = []
    message: Message = {"role": role}
    content: list[Message] = []
    for part in parts:
        call = part.functionCall or part.function_call
        answer = part.functionResponse or part.function_response
        media = part.inlineData or part.inline_data or part.fileData or part.file_data
        if part.text and (call or answer or media):
            reading.gaps.parts(place, "texts in one part with a call, an answer or a file")
        if call is not None:
            function = {"name": call.name, "arguments": as_json(place, call.args or {})}
            told = {"type": "function", "id": call.id or call.name, "function": function}
            message.setdefault("tool_calls", []).append(told)
        elif answer is not None:
            text = _answer(place, answer.response)
            name = answer.id or answer.name
            answers.append({"role": "tool", "tool_call_id": name, "content": text})
        elif media is not None:
            content.append(_media(media))
        elif part.thought and part.text is not None:
            before = message.get("reasoning_content", "")
            message["reasoning_content"] = before + part.text
        elif part.text is not None:
            content.append({"type": "text", "text": part.text})
        else:
            reading.gaps.parts(place, "parts that are no text, call, answer or file")
    if content or len(message) > 1 or not answers:
        texts = [one["text"] for one in content if one["type"] == "text"]
        plain = texts[0] if len(texts) == len(content) == 1 else content or ""
        answers.append({**message, "content": plain})
    return answers


def _answer(place: Place, response: Any) -> str:
    if response is None:
        return ""
    if isinstance(response, dict) and len(response) == 1:
        key, value = next(iter(response.items()))
        if key in _ANSWERS and isinstance(value, str):
            return value
    return response if isinstance(response, str) else as_json(place, response)


def _media(media: Media) -> Message:
    """Bytes or files as chat completions name them."""
    kind = media.mimeType or media.mime_type or ""
    url = media.fileUri or media.file_uri or f"data:{kind};base64,{media.data or ''}"
    group = kind.partition("/")[0]
    if group in ("image", "audio", "video"):
        return {"type": f"{group}_url", f"{group}_url": {"url": url}}
    return {"type": "file", "file": {"file_data": url}}


def _tools(place: Place, row: Row, reading: Reading) -> list[Message] | None:
    out = []
    for tool in row.tools or ():
        try:
            told = msgspec.convert(tool, Tools)
        except msgspec.ValidationError as error:
            raise place.error(f"a tool does not fit the format: {error}") from error
        declared = told.functionDeclarations or told.function_declarations
        if not declared or set(tool) - {"functionDeclarations", "function_declarations"}:
            reading.gaps.parts(place, "definitions of the provider's own tools")
        for one in declared or ():
            for key in set(one) - _DECLARED:
                if holds_text(one[key]):
                    reading.gaps.field(place, f"tools[].functionDeclarations[].{key}")
            out.append({"type": "function", "function": _function(one)})
    return out or None


def _function(declared: dict[str, Any]) -> Message:
    """A declaration as OpenAI has it; a JSON schema under its own name is the parameters."""
    schema = declared.get("parametersJsonSchema", declared.get("parameters_json_schema"))
    told: Message = {key: declared[key] for key in ("name", "description") if key in declared}
    parameters = declared.get("parameters", schema)
    return told if parameters is None else {**told, "parameters": parameters}


def _asked(config: Any) -> int | None:
    if not isinstance(config, dict):
        return None
    asked = config.get("maxOutputTokens", config.get("max_output_tokens"))
    return asked if isinstance(asked, int) and asked > 0 else None


def _add_response(place: Place, request: TextRequest, response: Response, reading: Reading) -> None:
    request.latency_s = response.latency_s
    usage = response.usageMetadata
    request.usage_tokens = usage.promptTokenCount if usage else None
    ids, reason = response.token_ids, response.finish_reason
    said: list[Message] = []
    if response.content is not None:
        said = [{"role": "assistant", "content": response.content}]
    if response.candidates is not None:
        if len(response.candidates) != 1:
            raise place.error(
                f"the response has {len(response.candidates)} candidates", "log one request a reply"
            )
        candidate = response.candidates[0]
        parts = (candidate.content.parts if candidate.content else None) or []
        said = _turn(place, "assistant", parts, reading)
        reason = "length" if candidate.finishReason == "MAX_TOKENS" else candidate.finishReason
    if said or ids is not None:
        request.reply = reply_of(said, ids, reason)
