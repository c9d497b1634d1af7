"""Request bodies of the three APIs, and Retry-After."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import orjson
import pytest

from loadkit.client.answer import retry_after_s
from loadkit.client.bodies import request_body

CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Rome and Oslo?"},
    {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": [
            {"id": "a", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
            {"id": "b", "function": {"name": "weather", "arguments": "not json"}},
        ],
    },
    {"role": "tool", "tool_call_id": "a", "content": "sun"},
    {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "snow"}]},
    {"role": "user", "content": "Thanks."},
]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}


def test_a_chat_body_has_only_what_every_server_knows() -> None:
    path, body = request_body("chat", model="m", max_tokens=5, messages=CHAT[:2])
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "m",
        "messages": CHAT[:2],
        "max_tokens": 5,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_flags_are_there_when_asked_for() -> None:
    _, body = request_body(
        "chat", model="m", max_tokens=5, tools=[TOOL], return_token_ids=True, cache_salt="s"
    )
    assert body["tools"] == [TOOL]
    assert (body["return_token_ids"], body["cache_salt"]) == (True, "s")
    assert "ignore_eos" not in body
    _, ignoring = request_body("chat", model="m", max_tokens=5, ignore_eos=True)
    assert ignoring["ignore_eos"] is True
    assert "min_tokens" not in ignoring
    _, exact = request_body("completions", model="m", max_tokens=5, prompt="x", exact_output=True)
    assert (exact["ignore_eos"], exact["min_tokens"], exact["max_tokens"]) == (True, 5, 5)


def test_completions_take_text_or_token_ids_as_they_are() -> None:
    path, body = request_body("completions", model="m", max_tokens=5, prompt=(7, 8, 9))
    assert (path, body["prompt"]) == ("/v1/completions", [7, 8, 9])
    assert request_body("completions", model="m", max_tokens=5, prompt=" a")[1]["prompt"] == " a"


def test_a_history_that_grows_gives_a_prompt_that_grows() -> None:
    prompts = [
        request_body("completions", model="m", max_tokens=5, messages=CHAT[:n])[1]["prompt"]
        for n in (1, 2, 6)
    ]
    assert prompts[0] == "Be brief."
    for shorter, longer in pairwise(prompts):
        assert longer.startswith(shorter)


def test_anthropic_messages_have_the_system_apart_and_tools_as_blocks() -> None:
    path, body = request_body(
        "messages", model="m", max_tokens=5, messages=CHAT, tools=[TOOL], exact_output=True
    )
    assert path == "/v1/messages"
    assert body == {
        "model": "m",
        "max_tokens": 5,
        "temperature": 0.0,
        "stream": True,
        "system": "Be brief.",
        "tools": [{"name": "weather", "input_schema": SCHEMA}],
        "messages": [
            {"role": "user", "content": "Weather in Rome and Oslo?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Rome"}},
                    {
                        "type": "tool_use",
                        "id": "b",
                        "name": "weather",
                        "input": {"arguments": "not json"},
                    },
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "a", "content": "sun"},
                    {"type": "tool_result", "tool_use_id": "b", "content": "snow"},
                ],
            },
            {"role": "user", "content": "Thanks."},
        ],
    }


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("7", None, 7.0),
        ("-3", None, 0.0),
        ("Tue, 24 Nov 2026 07:30:00 GMT", "Tue, 24 Nov 2026 07:29:30 GMT", 30.0),
        ("Tue, 24 Nov 2026 07:29:00 GMT", "Tue, 24 Nov 2026 07:29:30 GMT", 0.0),
        ("soon", None, None),
        ("nan", None, None),
        ("1e400", None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(
    value: str, date: str | None, seconds: float | None
) -> None:
    assert retry_after_s(value, date) == seconds


@pytest.mark.parametrize(
    "written", ["{nope", "[1]", '{"n": 99999999999999999999}', '{"a":' * 300 + "1" + "}" * 300]
)
def test_arguments_that_cannot_be_sent_as_an_object_go_as_text(written: str) -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": written}}
    chat = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    _, body = request_body("messages", model="m", max_tokens=1, messages=chat)
    assert body["messages"][0]["content"][0]["input"] == {"arguments": written}
    orjson.dumps(body)
