"""OpenTelemetry GenAI spans: the gen_ai.* attributes of a model call, a span or an export a line.

A row is an OTLP JSON export (`resourceSpans`), a span with `attributes` (an object, or OTLP's list
of key and value), or the attributes themselves beside `timestamp` (seconds). Message attributes are
JSON, or JSON in a string, as exporters write them. Spans that are no model call are counted and
passed over. Source: OpenTelemetry semantic conventions for generative AI, version 1.37 and later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec

from loadkit.traces.gaps import holds_text, known_fields
from loadkit.traces.lines import Place
from loadkit.traces.otel_messages import (
    Definition,
    OtelMessage,
    Part,
    chat_message,
    reply_of,
    tool_of,
)
from loadkit.traces.reading import Length, Name, Reading, Seconds
from loadkit.traces.texts import TextRequest

NAME = "otel"
_MESSAGES = "gen_ai.input.messages"
_SPAN_KEYS = ("resourceSpans", "attributes", "spanId", "span_id", "context", "traceId")
_NANOSECONDS = 1e9
# Where exporters put what was asked: these conventions', OpenInference's, OpenLLMetry's, the AI SDK's.
_OF_PROMPTS = ("gen_ai.", "llm.", "input.value", "traceloop.entity.input", "ai.prompt")
_NUMBER = re.compile(r"\.\d+")


class Call(
    msgspec.Struct,
    rename={
        "input_messages": _MESSAGES,
        "output_messages": "gen_ai.output.messages",
        "instructions": "gen_ai.system_instructions",
        "tools": "gen_ai.tool.definitions",
        "conversation": "gen_ai.conversation.id",
        "response_id": "gen_ai.response.id",
        "model": "gen_ai.request.model",
        "input_tokens": "gen_ai.usage.input_tokens",
    },
):
    """A model call: its attributes, and its times in seconds."""

    # What the conventions define beside the prompt: names, options, counts, the reply's ends.
    NO_TEXT: ClassVar[frozenset[str]] = frozenset(
        f"gen_ai.{name}"
        for name in [
            "agent.description",
            "agent.id",
            "agent.name",
            "agent.version",
            "conversation.id",
            "data_source.id",
            "embeddings.dimension.count",
            "evaluation.name",
            "evaluation.score.label",
            "operation.name",
            "output.type",
            "prompt.name",
            "provider.name",
            "request.choice.count",
            "request.encoding_formats",
            "request.frequency_penalty",
            "request.id",
            "request.max_tokens",
            "request.presence_penalty",
            "request.seed",
            "request.stop_sequences",
            "request.temperature",
            "request.top_k",
            "request.top_p",
            "request.stream",
            "response.finish_reasons",
            "response.id",
            "response.model",
            "system",
            "token.type",
            "tool.call.id",
            "tool.name",
            "tool.type",
            "usage.cache_creation.input_tokens",
            "usage.cache_read.input_tokens",
            "usage.input_tokens",
            "usage.output_tokens",
            "workflow.name",
            "openai.api.type",
            "openai.request.response_format",
            "openai.request.service_tier",
            "openai.response.service_tier",
            "openai.response.system_fingerprint",
            "response.time_to_first_chunk",
            "completion",
            "output.messages",
        ]
    )

    input_messages: list[OtelMessage]
    output_messages: list[OtelMessage] | None = None
    instructions: list[Part] | None = None
    tools: list[Definition] | None = None
    conversation: Name | None = None
    response_id: Name | None = None
    model: str | None = None
    input_tokens: Length | None = None
    timestamp: Seconds | None = None
    end: Seconds | None = None


def matches(row: dict[str, Any]) -> bool:
    """Whether a log's first row looks like this format."""
    if "resourceSpans" in row or any(str(key).startswith("gen_ai.") for key in row):
        return True
    attributes = row.get("attributes")
    return isinstance(attributes, dict | list) and any(key in row for key in _SPAN_KEYS[2:])


class Spans:
    """Reads the spans and counts those that are no model call, or hold no messages."""

    def __init__(self) -> None:
        self._num_other = 0

    def requests(self, reading: Reading) -> Iterator[tuple[Place, TextRequest]]:
        """The model calls of the log."""
        for place, row in reading.rows(dict[str, Any]):
            with reading.row():
                for span in _spans(place, row):
                    call = _call_of(place, span, reading)
                    if call is None:
                        self._num_other += 1
                    else:
                        yield place, _request_of(place, call)

    def notes(self) -> list[str]:
        """Counts the spans that were passed over."""
        if not self._num_other:
            return []
        return [f"{self._num_other} spans have no {_MESSAGES}: they are not counted as requests"]


def _is_of_span(key: str, row: dict[str, Any]) -> bool:
    """Whether the row has this key of a span; elsewhere `context` may be a text."""
    return key in row and not (key == "context" and isinstance(row[key], str))


def _spans(place: Place, row: dict[str, Any]) -> list[dict[str, Any]]:
    """The spans of a row. FormatError for a row that is nothing of OpenTelemetry."""
    if "resourceSpans" not in row:
        if _MESSAGES not in row and not any(_is_of_span(key, row) for key in _SPAN_KEYS):
            raise place.error(f"the row is no span and has no {_MESSAGES}")
        return [row]
    try:
        export = msgspec.convert(row, _Export)
    except msgspec.ValidationError as error:
        raise place.error(f"the export does not fit OTLP: {error}") from error
    scopes = [scope for resource in export.resourceSpans for scope in resource.scopeSpans]
    return [span for scope in scopes for span in scope.spans]


class _Scope(msgspec.Struct):
    spans: list[dict[str, Any]] = []


class _Resource(msgspec.Struct):
    scopeSpans: list[_Scope] = []


class _Export(msgspec.Struct):
    resourceSpans: list[_Resource]


def _call_of(place: Place, span: dict[str, Any], reading: Reading) -> Call | None:
    """The call that a span describes; None if it has no messages."""
    attributes = _attributes(place, span)
    if _MESSAGES not in attributes:
        return None
    for key in ("input.messages", "output.messages", "system_instructions", "tool.definitions"):
        _decode_text(place, attributes, f"gen_ai.{key}")
    attributes["timestamp"] = _time(place, span, "start")
    attributes["end"] = _time(place, span, "end")
    for key in attributes.keys() - known_fields(Call):
        if key.startswith(_OF_PROMPTS) and holds_text(attributes[key]):
            reading.gaps.field(place, _NUMBER.sub(".N", key))
    try:
        return msgspec.convert(attributes, Call)
    except msgspec.ValidationError as error:
        raise place.error(f"the span does not fit the format: {error}") from error


def _attributes(place: Place, span: dict[str, Any]) -> dict[str, Any]:
    attributes = span.get("attributes", span)
    if isinstance(attributes, dict):
        return dict(attributes)
    try:
        pairs = msgspec.convert(attributes, list[_KeyValue])
    except msgspec.ValidationError as error:
        raise place.error(f"the attributes do not fit OTLP: {error}") from error
    return {pair.key: _plain(pair.value) for pair in pairs}


class _KeyValue(msgspec.Struct):
    key: str
    value: dict[str, Any] = {}


def _plain(value: dict[str, Any]) -> Any:
    """An OTLP AnyValue as a plain value; OTLP writes 64-bit integers as text."""
    if "arrayValue" in value and isinstance(value["arrayValue"], dict):
        items = value["arrayValue"].get("values") or []
        return [_plain(item) for item in items if isinstance(item, dict)]
    if "kvlistValue" in value and isinstance(value["kvlistValue"], dict):
        pairs = value["kvlistValue"].get("values") or []
        return {str(p.get("key")): _plain(p.get("value") or {}) for p in pairs if _is_pair(p)}
    if isinstance(value.get("intValue"), str) and value["intValue"].isdecimal():
        return int(value["intValue"][:20])
    return next(iter(value.values()), None)


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, dict) and isinstance(pair.get("value") or {}, dict)


def _decode_text(place: Place, attributes: dict[str, Any], key: str) -> None:
    if not isinstance(attributes.get(key), str):
        return
    try:
        attributes[key] = msgspec.json.decode(attributes[key])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise place.error(f"{key} is text that is not JSON: {error}") from error


def _time(place: Place, span: dict[str, Any], which: str) -> float | None:
    """Seconds since 1970 at which a span starts or ends; `timestamp` stands for a missing start.
    A time without a zone is UTC, whoever reads it where."""
    nanoseconds = span.get(f"{which}TimeUnixNano", span.get(f"{which}_time_unix_nano"))
    text = span.get(f"{which}_time")
    try:
        if nanoseconds is not None:
            return int(nanoseconds) / _NANOSECONDS
        if text is not None:
            at = datetime.fromisoformat(text)
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        return span.get("timestamp") if which == "start" else None
    except (TypeError, ValueError, OverflowError) as error:
        raise place.error(f"the span's {which} time is not understood: {error}") from error


def _request_of(place: Place, call: Call) -> TextRequest:
    messages = [chat_message(place, message) for message in call.input_messages]
    if call.instructions:
        system = chat_message(place, OtelMessage(role="system", parts=call.instructions))
        messages.insert(0, system)
    times = call.timestamp, call.end
    return TextRequest(
        messages=messages,
        tools=[tool_of(tool) for tool in call.tools] if call.tools else None,
        session=call.conversation,
        model=call.model or "",
        request_id=call.response_id,
        arrival_s=call.timestamp,
        latency_s=None if None in times else max(0.0, times[1] - times[0]),  # type: ignore[operator]
        reply=reply_of(place, call.output_messages),
        usage_tokens=call.input_tokens,
    )
