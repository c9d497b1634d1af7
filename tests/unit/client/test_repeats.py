"""Streams that are one event with other words in it: read at once, and as if event by event."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

import pytest

from loadkit.client.answer import Response, decode
from loadkit.client.chunks import Chunk
from loadkit.client.receipt import Receipt
from loadkit.client.repeats import read_events

TRICKY = ["a", "", 'say "hi"', "\\", "\n\ndata: x", "wörld 🌍", '","', "\u2028", '"}}]}', "]"]


def event(delta: dict[str, Any], **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None} | more
    return (
        b"data: " + json.dumps({"id": "c", "choices": [choice], "usage": None}).encode() + b"\n\n"
    )


def stream(texts: list[str]) -> list[bytes]:
    first = event({"role": "assistant", "content": ""})
    last = event({}, finish_reason="stop")
    return [first, *(event({"content": text}) for text in texts), last, b"data: [DONE]\n\n"]


def read(pieces: list[bytes]) -> Response:
    receipt = Receipt()
    receipt.pieces = pieces
    receipt.stamps = [float(number) for number in range(len(pieces))]
    receipt.status, receipt.framed, receipt.ended = 200, True, "complete"
    receipt.headers[b"content-type"] = b"text/event-stream"
    return decode(receipt)


def datas_of(events: list[bytes]) -> list[bytes]:
    return [event[len(b"data: ") :].strip() for event in events if b"[DONE]" not in event]


def test_events_that_say_one_text_are_that_text_and_others_are_decoded() -> None:
    events = read_events(datas_of(stream(["x"] * 20)))
    assert events[1:-1] == ["x"] * 20
    assert [isinstance(event, Chunk) for event in (events[0], events[-1])] == [True, True]


def test_a_last_event_with_text_and_a_reason_is_decoded() -> None:
    last = event({"content": "y"}, finish_reason="length")
    events = read_events(datas_of([*[event({"content": "x"})] * 20, last]))
    assert events[:-1] == ["x"] * 20
    assert isinstance(events[-1], Chunk)


@pytest.mark.parametrize("seed", range(20))
def test_texts_and_times_are_those_of_the_events(seed: int) -> None:
    """Each event a piece of its own: the time of the n-th is n; an empty text is no token."""
    texts = random.Random(seed).choices(TRICKY, k=40)
    response = read(stream(texts))
    assert (response.outcome, response.error) == ("ok", None)
    assert response.text == "".join(texts)
    times = [number for number, text in enumerate(texts, start=1) if text]
    assert (response.first_token_at, response.last_token_at) == (times[0], times[-1])
    assert response.gaps_s == [b - a for a, b in pairwise(times)]


@pytest.mark.parametrize(
    "odd",
    [
        event({"content": None, "tool_calls": [{"index": 0}]}),
        event({"content": "b", "reasoning": "hm"}),
        event({"content": "b"}, finish_reason="stop"),
        event({"content": "b"}, token_ids=[7]),
        b'data: {"error": {"message": "engine died"}}\n\n',
        b": ping\n\n",
        b"data: {nope\n\n",
    ],
)
@pytest.mark.parametrize("place", [0, 1, 10, 20])
def test_an_event_of_another_kind_in_the_run_is_not_lost(odd: bytes, place: int) -> None:
    """The second stream is read event by event: a space in every other one breaks the template, or
    leaves it to half of them."""
    texts = ["a"] * 20
    events = stream(texts)
    events.insert(1 + place, odd)
    spaced = [e.replace(b'"id": ', b'"id":  ') if n % 2 else e for n, e in enumerate(events)]
    assert read(events) == read(spaced)


def test_text_of_the_model_cannot_pose_as_a_template() -> None:
    texts = ['{"content": "x"}', '"content": "'] * 10
    assert read(stream(texts)).text == "".join(texts)
