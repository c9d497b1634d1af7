"""Whole answers of each server, streamed and not, over a real socket: text, tokens, usage."""

from __future__ import annotations

import json
from typing import Any

import pytest
from byte_server import byte_server, chunked, sized
from client_faults import CHUNKED

from loadkit.client.answer import Response
from loadkit.client.decoder import ToolCall
from loadkit.client.endpoint import Endpoint
from loadkit.client.secret import Secret
from loadkit.client.stream import StreamClient
from loadkit.core.blocks import packed_tokens


def event(body: dict[str, Any], name: str | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(body)}\n\n".encode()


def ask(*steps: bytes) -> Response:
    with byte_server(*steps) as server:
        client = StreamClient(Endpoint.parse(server.url))
        response = client.send(client.connect(), client.prepare({}, session="s"))
        client.close()
    return response


def anthropic(*bodies: dict[str, Any]) -> Response:
    return ask(CHUNKED, *chunked(*(event(body, body["type"]) for body in bodies)))


START_USAGE = {
    "input_tokens": 10,
    "cache_read_input_tokens": 60,
    "cache_creation_input_tokens": 30,
    "output_tokens": 1,
}
START = {"type": "message_start", "message": {"id": "m", "content": [], "usage": START_USAGE}}
STOP = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}  # fmt: skip


def delta(**fields: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": fields}


def test_anthropics_two_usages_are_halves_of_one() -> None:
    response = anthropic(
        START,
        {"type": "ping"},
        delta(type="thinking_delta", thinking="hm"),
        delta(type="text_delta", text="Hi "),
        delta(type="text_delta", text="you"),
        delta(type="input_json_delta", partial_json="{"),
        STOP,
        {"type": "message_stop"},
    )
    assert (response.outcome, response.error) == ("ok", None)
    assert (response.text, response.reasoning) == ("Hi you", "hm")
    assert response.finish_reason == "end_turn"
    assert response.usage[:3] == (100, 5, 60)
    assert len(response.gaps_s) == 3


def test_an_anthropic_stream_without_its_stop_is_cut_and_its_error_is_told() -> None:
    assert anthropic(START, delta(type="text_delta", text="Hi")).outcome == "cut"
    failed = anthropic(START, {"type": "error", "error": {"message": "overloaded"}})
    assert (failed.outcome, failed.error) == ("cut", "error in the answer: overloaded")


def test_a_whole_anthropic_answer() -> None:
    body = {
        "type": "message",
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hi"}],
        "stop_reason": "max_tokens",
        "usage": START_USAGE,
    }
    response = ask(sized(json.dumps(body).encode(), kind=b"application/json"))
    assert (response.outcome, response.text, response.reasoning) == ("ok", "Hi", "hm")
    assert response.usage[:3] == (100, 1, 60)


def test_llama_cpps_own_completion_ends_with_stop_and_timings() -> None:
    timings = {"cache_n": 40, "prompt_n": 12, "predicted_n": 2}
    response = ask(
        CHUNKED,
        *chunked(
            event({"content": "a", "stop": False}),
            event({"content": "b", "stop": False}),
            event({"content": "", "stop": True, "timings": timings}),
        ),
    )
    assert (response.outcome, response.text) == ("ok", "ab")
    assert response.usage[:3] == (52, 2, 40)
    assert len(response.gaps_s) == 1


OPENAI = {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101}


@pytest.mark.parametrize(
    ("usage", "cached"),
    [
        (OPENAI | {"prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0}}, 64),
        (OPENAI | {"prompt_tokens_details": None}, None),  # vLLM without its flag
        (OPENAI | {"prompt_tokens_details": {"cached_tokens": 0}}, 0),
        (OPENAI | {"prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36}, 64),  # DeepSeek
        (OPENAI, None),  # transformers serve
    ],
)
def test_openai_like_usage_of_each_server(usage: dict[str, Any], cached: int | None) -> None:
    choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}
    done = b"data: [DONE]\n\n"
    response = ask(
        CHUNKED,
        *chunked(event({"choices": [choice]}), event({"choices": [], "usage": usage}), done),
    )
    assert response.usage[:3] == (100, 1, cached)


def test_usage_in_every_event_is_the_last_ones() -> None:
    """vLLM's continuous_usage_stats."""
    events = [
        event(
            {"choices": [{"delta": {"content": "x"}}], "usage": OPENAI | {"completion_tokens": n}}
        )
        for n in (1, 2, 3)
    ]
    response = ask(CHUNKED, *chunked(*events, b"data: [DONE]\n\n"))
    assert (response.text, response.usage.output_tokens) == ("xxx", 3)


def test_reasoning_stands_apart_from_the_text_under_either_name() -> None:
    for name in ("reasoning_content", "reasoning"):
        first = event({"choices": [{"delta": {name: "let me think", "content": None}}]})
        second = event({"choices": [{"delta": {"content": "42"}, "finish_reason": "stop"}]})
        response = ask(CHUNKED, *chunked(first, second, b"data: [DONE]\n\n"))
        assert (response.reasoning, response.text) == ("let me think", "42")
        assert len(response.gaps_s) == 1


@pytest.mark.parametrize("status", [b"429 X", b"503 X"])
def test_how_long_to_wait_comes_along(status: bytes) -> None:
    answer = b"HTTP/1.1 " + status + b"\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
    assert ask(answer).retry_after_s == 7.0
    assert ask(answer.replace(b"7", b"x")).retry_after_s is None


def test_an_anthropic_request_carries_its_version_and_key() -> None:
    client = StreamClient(Endpoint.parse("http://127.0.0.1:9"), key=Secret("sk-1"))
    head = client.prepare({}, session="s", path="/v1/messages").partition(b"\r\n\r\n")[0]
    assert b"\r\nanthropic-version: 2023-06-01\r\nx-api-key: sk-1\r\n" in head
    assert b"x-api-key" not in client.prepare({}, session="s")
    client.close()


DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2}


def openai(*deltas: dict[str, Any], **last: Any) -> Response:
    """A chat stream of these deltas; its last event but one says `last`."""
    events = [event({"choices": [{"index": 0, "delta": delta}]}) for delta in deltas]
    stop = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]} | last
    return ask(CHUNKED, *chunked(*events, event(stop), DONE))


def piece(index: int, arguments: str, **more: Any) -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": more.pop("name")} if "name" in more else {})
    return {"tool_calls": [{"index": index, "function": function} | more]}


CALLS = [ToolCall("c1", "weather", '{"at": "Rome"}'), ToolCall("c2", "time", "{}")]


def test_pieces_of_tool_calls_are_joined_by_their_index() -> None:
    response = openai(
        {"role": "assistant", "content": None},
        piece(0, "", id="c1", type="function", name="weather"),
        piece(0, '{"at": '),
        piece(1, "", id="c2", type="function", name="time"),
        piece(0, '"Rome"}'),
        piece(1, "{}"),
    )
    assert response.outcome == "ok"
    assert (response.text, response.tool_calls) == ("", CALLS)


def test_a_whole_answers_tool_calls() -> None:
    calls = [
        {"id": "c1", "function": {"name": "weather", "arguments": '{"at": "Rome"}'}},
        {"function": {"name": "time", "arguments": {"in": "s"}}},
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    body = {"choices": [{"message": message, "finish_reason": "tool_calls"}]}
    response = ask(sized(json.dumps(body).encode(), kind=b"application/json"))
    assert response.tool_calls == [CALLS[0], ToolCall("call_1", "time", '{"in":"s"}')]


def test_anthropics_tool_calls() -> None:
    def begin(index: int, block: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_start", "index": index, "content_block": block}

    def more(index: int, text: str) -> dict[str, Any]:
        told = {"type": "input_json_delta", "partial_json": text}
        return {"type": "content_block_delta", "index": index, "delta": told}

    response = anthropic(
        START,
        begin(0, {"type": "text", "text": ""}),
        delta(type="text_delta", text="Let me look."),
        begin(1, {"type": "tool_use", "id": "c1", "name": "weather", "input": {}}),
        more(1, '{"at": '),
        begin(2, {"type": "tool_use", "id": "c2", "name": "time", "input": {}}),
        more(1, '"Rome"}'),
        more(2, "{}"),
        STOP,
        {"type": "message_stop"},
    )
    assert (response.text, response.tool_calls) == ("Let me look.", CALLS)


@pytest.mark.parametrize("index", [-1, 1 << 70, "0", None, [1]])
def test_a_tool_call_of_an_impossible_index_breaks_no_answer(index: Any) -> None:
    told = {"tool_calls": [{"index": index, "function": {"name": "f", "arguments": 7}}, 3]}
    assert openai(told, {"tool_calls": "no list"}, {"content": "x"}).text == "x"


def test_content_as_a_list_of_parts_is_text() -> None:
    parts: list[Any] = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "Hi "},
        {"type": "image_url", "image_url": {"url": "x"}},
        7,
    ]
    response = openai({"content": parts}, {"content": [{"type": "text", "text": "you"}]})
    assert (response.outcome, response.text, response.reasoning) == ("ok", "Hi you", "hm")
    assert len(response.gaps_s) == 1
    body = {"choices": [{"message": {"content": parts}, "finish_reason": "stop"}]}
    whole = ask(sized(json.dumps(body).encode(), kind=b"application/json"))
    assert (whole.outcome, whole.text) == ("ok", "Hi ")


def test_usage_in_x_groq_and_in_a_choice() -> None:
    assert openai({"content": "x"}, x_groq={"usage": USAGE}).usage[:2] == (3, 2)
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}
    assert openai({"content": "x"}, choices=[choice]).usage[:2] == (3, 2)


@pytest.mark.parametrize("where", ["first", "last", "choice"])
def test_the_servers_own_token_ids_of_the_prompt(where: str) -> None:
    """vLLM: beside the first chunk's choices for chats, in the choice for completions; some in the
    last chunk."""
    first: dict[str, Any] = {"choices": [{"index": 0, "delta": {"content": "a"}}]}
    last: dict[str, Any] = {"choices": [], "usage": USAGE}
    if where == "choice":
        first["choices"][0]["prompt_token_ids"] = [5, 6, 7]
    else:
        (first if where == "first" else last)["prompt_token_ids"] = [5, 6, 7]
    events = [event({"choices": [{"index": 0, "delta": {"content": "b"}}]})] * 20
    response = ask(CHUNKED, *chunked(event(first), *events, event(last), DONE))
    assert (response.outcome, response.error) == ("ok", None)
    assert response.prompt_token_ids == packed_tokens([5, 6, 7])


@pytest.mark.parametrize(
    ("ids", "why"),
    [
        ([5, 6], "2 prompt token ids of 3 prompt tokens"),
        ([5, 6, 1 << 80], "prompt token ids that are none"),
        ([5, 6, -7], "prompt token ids that are none"),
        (["5", "6", "7"], "prompt token ids that are none"),
        ([5.5, 6, 7], "prompt token ids that are none"),
        ({"ids": [5]}, "prompt token ids that are none"),
        (7, "prompt token ids that are none"),
    ],
)
def test_prompt_token_ids_that_cannot_be_are_not_believed(ids: Any, why: str) -> None:
    response = openai({"content": "x"}, prompt_token_ids=ids, usage=USAGE)
    assert (response.outcome, response.prompt_token_ids) == ("ok", None)
    assert response.error == f"not believed: {why}"


def test_token_ids_of_another_number_than_the_usage_says_are_not_the_replys() -> None:
    """A server that leaves the ids of swallowed pieces out."""
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", "token_ids": [1]}
    response = openai({"content": "x"}, choices=[choice], usage=USAGE)
    assert (response.token_ids, response.error) == (
        None,
        "not believed: 1 token ids of 2 output tokens",
    )


def test_how_many_tokens_came_by_each_event_that_had_some() -> None:
    """A busy server puts several tokens into one event; the last one's id comes without text."""

    def told(text: str, ids: list[int]) -> bytes:
        return event({"choices": [{"index": 0, "delta": {"content": text}, "token_ids": ids}]})

    stop = event(
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "token_ids": [9]}]}
    )
    merged = ask(CHUNKED, *chunked(told("a", [1]), told("bc", [2, 3]), told("d", [4]), stop, DONE))
    assert (merged.event_tokens, merged.token_ids) == ([1, 2, 1], [1, 2, 3, 4, 9])
    single = ask(CHUNKED, *chunked(told("a", [1]), told("b", [2]), stop, DONE))
    assert single.event_tokens == [], "one with every event"
    assert openai({"content": "a"}, {"content": "b"}).event_tokens == [], "the server sends no ids"
