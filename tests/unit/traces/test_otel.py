"""OpenTelemetry spans of model calls."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loadkit.core.errors import FormatError
from loadkit.core.tokenizer import Tokenizer
from loadkit.core.trace import Trace
from loadkit.traces import read_log

WriteLog = Callable[..., Path]
Read = Callable[..., Trace]


@pytest.fixture
def read(letters: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Read:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    monkeypatch.setattr(letters.hf, "chat_template", template)

    def read_in_blocks_of_two(*paths: Path, **options: Any) -> Trace:
        log = read_log(paths, tokenizer=letters, block_size=2, **options)
        assert log.format == "otel"
        return log.trace

    return read_in_blocks_of_two


def message(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def attributes(text: str, **more: Any) -> dict[str, Any]:
    named = {f"gen_ai.{key.replace('__', '.')}": value for key, value in more.items()}
    return {"gen_ai.input.messages": [message(text)], **named}


def test_flat_attributes_are_a_call(write_log: WriteLog, read: Read) -> None:
    reply = [message("cd", "assistant") | {"finish_reason": "stop"}]
    log = write_log(
        attributes("ab", conversation__id="s", output__messages=reply) | {"timestamp": 5},
        attributes("abcdef", conversation__id="s", output__messages=reply) | {"timestamp": 7},
    )
    trace = read(log)
    assert trace.prompt_tokens.tolist() == [2, 6]
    assert trace.output_tokens.tolist() == [2, 2]
    assert trace.session.tolist() == [0, 0]
    assert trace.arrival_s is not None
    assert trace.arrival_s.tolist() == [5, 7]
    assert trace.warnings == ()


def test_a_span_has_times_in_nanoseconds_and_messages_as_text(
    write_log: WriteLog, read: Read
) -> None:
    span = {
        "spanId": "1",
        "startTimeUnixNano": "2000000000",
        "endTimeUnixNano": "2500000000",
        "attributes": {"gen_ai.input.messages": json.dumps([message("abc")])},
    }
    trace = read(write_log(span))
    assert trace.prompt_tokens.tolist() == [3]
    assert trace.arrival_s is not None
    assert trace.arrival_s.tolist() == [2.0]
    assert trace.completed_s is not None
    assert trace.completed_s.tolist() == [2.5]


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
@pytest.mark.parametrize("zone", ["Z", "+00:00", ""])
def test_times_may_be_written_out_and_are_utc_wherever_they_are_read(
    write_log: WriteLog, read: Read, zone: str
) -> None:
    at = f"1970-01-01T00:00:03{zone}"
    trace = read(write_log({"context": {}, "start_time": at, "attributes": attributes("ab")}))
    assert trace.arrival_s is not None
    assert trace.arrival_s.tolist() == [3.0]


def test_an_otlp_export_holds_many_spans(write_log: WriteLog, read: Read) -> None:
    def span(text: str) -> dict[str, Any]:
        pairs = [
            {"key": "gen_ai.input.messages", "value": {"stringValue": json.dumps([message(text)])}},
            {"key": "gen_ai.usage.input_tokens", "value": {"intValue": str(len(text))}},
        ]
        return {"startTimeUnixNano": "1", "attributes": pairs}

    other = {"startTimeUnixNano": "1", "attributes": [{"key": "http.route", "value": {}}]}
    scopes = [{"spans": [span("ab"), other]}, {"spans": [span("abcd")]}]
    trace = read(write_log({"resourceSpans": [{"scopeSpans": scopes}]}))
    assert trace.prompt_tokens.tolist() == [2, 4]
    assert trace.warnings[0].startswith("1 spans have no gen_ai.input.messages")


def test_instructions_tools_and_tool_calls_reach_the_template(
    write_log: WriteLog, read: Read, letters: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = (
        "{{ tools[0].function.name }}{% for m in messages %}{{ m.role[0] }}{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}{% endfor %}"
    )
    monkeypatch.setattr(letters.hf, "chat_template", template)
    call = {"type": "tool_call", "id": "1", "name": "fg", "arguments": {}}
    answer = {"type": "tool_call_response", "id": "1", "response": "hi"}
    row = {
        "gen_ai.input.messages": [
            message("cd"),
            {"role": "assistant", "parts": [call]},
            {"role": "tool", "parts": [answer]},
        ],
        "gen_ai.system_instructions": [{"type": "text", "content": "ab"}],
        "gen_ai.tool.definitions": [{"type": "function", "name": "xyz"}],
    }
    # xyz, s ab, u cd, a fg, t hi.
    assert read(write_log(row)).prompt_tokens.tolist() == [3 + 3 + 3 + 3 + 3]


@pytest.mark.parametrize(
    ("bad", "message_part"),
    [
        ({"gen_ai.input.messages": "[{"}, "not JSON"),
        ({"gen_ai.input.messages": [{"parts": []}]}, "role"),
        ({"gen_ai.input.messages": 5}, "does not fit"),
        (
            {"gen_ai.input.messages": [{"role": "user", "parts": [{"type": "blob"}]}]},
            "part of type 'blob'",
        ),
        ({"attributes": [{"value": 3}]}, "do not fit OTLP"),
        ({"resourceSpans": 5}, "does not fit OTLP"),
        ({"attributes": attributes("a"), "start_time": "soon"}, "start time"),
        ({"attributes": attributes("a"), "startTimeUnixNano": "x"}, "start time"),
        ({"hello": 1}, "no span"),
    ],
)
def test_a_row_that_does_not_fit_is_named_by_line(
    write_log: WriteLog, read: Read, bad: dict[str, Any], message_part: str
) -> None:
    with pytest.raises(FormatError, match=r"log\.jsonl:2: ") as caught:
        read(write_log(attributes("ab"), bad))
    assert message_part in str(caught.value)
