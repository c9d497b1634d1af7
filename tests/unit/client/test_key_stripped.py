"""A server that repeats our key, whole or in part, in whatever it says: no part of 8 characters stays."""

from __future__ import annotations

import dataclasses
import json
import random
from typing import Any

import pytest
from byte_server import CHUNKED_HEAD, byte_server, chunked, sized
from hypothesis import given
from hypothesis import strategies as st

from loadkit.client.answer import Response
from loadkit.client.control import ControlPlane, NotListed
from loadkit.client.endpoint import Endpoint
from loadkit.client.secret import PART, STARS, Secret
from loadkit.client.stream import StreamClient
from loadkit.core.errors import InputError

KEY = "sk-4f9Q-zR7tLw2XmPc8Vd1"
DONE = b"data: [DONE]\n\n"


def parts_in(text: str, key: str = KEY) -> list[str]:
    """Every 8 characters of the key that stand in the text, in any case."""
    low, key = text.lower(), key.lower()
    return [key[at : at + 8] for at in range(len(key) - 7) if key[at : at + 8] in low]


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def delta(**fields: Any) -> bytes:
    return event(choices=[{"delta": fields}])


def ask(*steps: bytes, path: str = "/v1/chat/completions") -> Response:
    with byte_server(*steps) as server:
        client = StreamClient(Endpoint.parse(server.url), key=Secret(KEY))
        request = client.prepare({"messages": []}, session="s", path=path)
        response = client.send(client.connect(), request)
        client.close()
        assert KEY.encode() in server.requests[0]
    shown = json.dumps(dataclasses.asdict(response), default=repr) + repr(response)
    assert parts_in(shown) == []
    return response


def stream(*events: bytes) -> Response:
    return ask(CHUNKED_HEAD, *chunked(*events, event(choices=[{"finish_reason": "stop"}]), DONE))


@pytest.mark.parametrize("name", ["content", "reasoning_content", "reasoning"])
@pytest.mark.parametrize("size", [len(KEY), 8, 1])
def test_a_reply_that_says_the_key_in_pieces_of_any_size(name: str, size: int) -> None:
    said = [KEY[at : at + size] for at in range(0, len(KEY), size)]
    response = stream(*[delta(**{name: piece}) for piece in ["so ", *said, " it is"]])
    assert f"so {STARS} it is" in (response.text, response.reasoning)
    assert response.outcome == "ok"
    assert response.error is not None
    assert "API key" in response.error


def test_a_reply_without_it_is_kept_to_the_letter() -> None:
    response = stream(delta(content=KEY[:7]), delta(content=" "), delta(content=KEY[7:14]))
    assert response.text == f"{KEY[:7]} {KEY[7:14]}"
    assert response.error is None


def test_token_ids_that_would_spell_it_are_not_kept() -> None:
    assert stream(delta(content="a"), event(choices=[{"token_ids": [1]}])).token_ids == [1]
    spelled = stream(delta(content=KEY), event(choices=[{"token_ids": [1]}]))
    assert spelled.token_ids is None


def test_escaped_in_json_and_in_other_cases() -> None:
    escaped = "".join(f"\\u{ord(c):04x}" for c in KEY).encode()
    assert stream(delta(content="@").replace(b"@", escaped)).text == STARS
    assert stream(delta(content=KEY.upper())).text == STARS


def test_every_other_field_of_an_answer() -> None:
    call = {"index": 0, "id": KEY, "function": {"name": KEY, "arguments": f'{{"k": "{KEY}"}}'}}
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "loadkit": {KEY: 3, "shared": 2}}
    response = stream(
        event(id=KEY, model=KEY, system_fingerprint=KEY, choices=[]),
        delta(role=KEY, content="a", tool_calls=[call]),
        event(choices=[{"delta": {}, "finish_reason": f"stop{KEY}"}]),
        event(choices=[], usage=usage, service_tier=KEY),
    )
    assert response.usage.server_split == {"shared": 2}
    assert response.tool_calls[0].name == STARS
    anthropic = ask(
        CHUNKED_HEAD,
        *chunked(
            event(type="message_start", message={"id": KEY, "usage": {"input_tokens": 1}}),
            event(type="content_block_delta", index=0, delta={"text": KEY[:9]}),
            event(type="content_block_delta", index=0, delta={"text": KEY[9:]}),
            event(type="message_delta", delta={"stop_reason": KEY}),
            event(type="message_stop"),
        ),
        path="/v1/messages",
    )
    assert (anthropic.text, anthropic.finish_reason) == (STARS, STARS)


@pytest.mark.parametrize("before", [0, 200, 277, 290, 299, 590, 2380, 2400])
@pytest.mark.parametrize("shape", ["json", "text", "event", "whole", "detail"])
def test_an_error_that_repeats_it_across_the_place_where_it_is_cut(before: int, shape: str) -> None:
    said = "x" * before + KEY + "y" * 50
    body: dict[str, Any] = {"error": {"message": said, "code": KEY}}
    if shape == "event":
        response = ask(CHUNKED_HEAD, *chunked(event(**body), DONE))
    elif shape == "whole":
        response = ask(sized(json.dumps(body).encode(), kind=b"application/json"))
    elif shape == "detail":
        response = ask(sized(json.dumps({"detail": [{"x": said}]}).encode(), b"422 X"))
    else:
        data = json.dumps(body).encode() if shape == "json" else said.encode()
        response = ask(sized(data, b"500 X"))
    assert response.outcome in ("http_error", "cut")
    assert response.error


@pytest.mark.parametrize("header", ["Location: https://h/?k=%s", "Location: https://h/?k=%s&a"])
def test_a_redirect_that_repeats_it_even_percent_encoded(header: str) -> None:
    encoded = KEY.replace("-", "%2D")
    for word in (KEY, encoded, "".join(f"%{ord(c):02x}" for c in KEY)):
        line = header.replace("%s", word).encode()
        head = b"HTTP/1.1 307 X\r\n" + line + b"\r\nContent-Length: 0\r\n\r\n"
        assert STARS in (ask(head).error or "")
    coded = b"HTTP/1.1 200 X\r\nContent-Encoding: %s\r\nContent-Length: 0\r\n\r\n" % KEY.encode()
    assert STARS in (ask(coded).error or "")


def test_white_space_that_becomes_one_brings_no_key_together() -> None:
    spaced = Secret("a secret of words")
    with byte_server(sized(b"a  secret\nof \t words", b"500 X")) as server:
        client = StreamClient(Endpoint.parse(server.url), key=spaced)
        request = client.prepare({"messages": []}, session="s")
        response = client.send(client.connect(), request)
        client.close()
    assert response.error == STARS


def test_a_model_that_has_it_in_its_name_is_not_listed_and_not_shown() -> None:
    body = json.dumps({"data": [{"id": f"llama-{KEY[4:13]}"}]}).encode()
    with (
        byte_server(sized(body, kind=b"application/json")) as server,
        ControlPlane(Endpoint.parse(server.url), key=Secret(KEY)) as plane,
    ):
        with pytest.raises(NotListed, match="repeats the API key") as caught:
            plane.list_models()
        assert parts_in(f"{caught.value} {plane.models_unread}") == []


def test_the_control_plane_shows_it_in_no_card_metric_or_error() -> None:
    card = {"id": "m", "loadkit": {"tokenizer_fingerprint": KEY, "block_size": 16}}
    page = (
        f'vllm:prefix_cache_queries_total{{model="{KEY}"}} 9\n'
        f'vllm:prefix_cache_hits_total{{model="{KEY}"}} 3\n'
        f'loadkit:prefix_cache_tokens_total{{cause="{KEY}"}} 3\n'
        f'vllm:cache_config_info{{engine="{KEY}",block_size="16",num_gpu_blocks="{KEY}"}} 1\n'
    ).encode()

    def shown(call: Any, answer: bytes) -> str:
        with (
            byte_server(answer) as server,
            ControlPlane(Endpoint.parse(server.url), key=Secret(KEY)) as plane,
        ):
            try:
                return repr(call(plane)) + repr(plane.metrics_unread)
            except InputError as error:
                return str(error)

    seen = [
        shown(ControlPlane.list_models, sized(json.dumps({"data": [card]}).encode())),
        shown(ControlPlane.prefix_counters, sized(page)),
        shown(ControlPlane.cache_setup, sized(page)),
        shown(ControlPlane.prefix_counters, sized(b"x" * 200 + KEY.encode(), b"500 X")),
        *(
            shown(call, sized(b"x" * length + KEY.encode(), b"500 X"))
            for length in range(80, 130, 3)
            for call in (ControlPlane.list_models, lambda plane: plane.num_tokens({}))
        ),
    ]
    assert "queries=9.0" in seen[1]
    assert "block_size=16" in seen[2]
    assert [parts_in(text) for text in seen] == [[]] * len(seen)


@given(st.data())
def test_no_part_of_8_survives_and_nothing_else_is_touched(data: st.DataObject) -> None:
    rng = random.Random(data.draw(st.integers(0, 1 << 32)))
    key = "".join(rng.choices("abAB12-", k=rng.randint(PART, 30)))
    pieces = []
    for _ in range(rng.randint(0, 8)):
        start = rng.randrange(len(key))
        pieces += [
            "".join(rng.choices("abAB é İ\u212a", k=rng.randint(0, 6))),
            key[start : start + rng.randint(1, 20)],
        ]
    text = "".join(pieces)
    stripped = Secret(key).strip_from(text)
    assert parts_in(stripped, key) == []
    if not parts_in(text, key):
        assert stripped is text
    left = iter(text)
    assert all(char in left for char in stripped.replace(STARS, "")), "an order of its own"


def test_a_short_key_is_no_secret_and_changes_no_reply() -> None:
    assert Secret("EMPTY").strip_from("an EMPTY list") == "an EMPTY list"


def test_a_flood_of_keys_is_one_star() -> None:
    assert Secret(KEY).strip_from((KEY[:8] + " ") * 20_000) == STARS
