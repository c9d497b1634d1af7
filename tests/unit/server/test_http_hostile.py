"""Whatever a body says and whenever a client goes, nothing is a 500 and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from engine_builders import check_pages
from http_calls import BODY, ask, call, make_service
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference_server.api import make_app
from reference_server.schema import ChatRequest, CompletionRequest, DetokenizeRequest
from reference_server.schema import TokenizeRequest as Tokenize
from reference_server.service import Service

SCHEMAS = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/tokenize": Tokenize,
    "/detokenize": DetokenizeRequest,
}
ENDED = "vllm:request_success"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 400) | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "assistant", "tool", "god"])},
        optional={"content": st.text(max_size=20) | VALUES, "tool_calls": VALUES, "name": VALUES},
    ),
    max_size=3,
)


@st.composite
def bodies(draw: st.DrawFn, path: str) -> dict[str, Any]:
    """Mostly sound, so that much of it gets through: a few fields of the schema with any value."""
    sound: dict[str, Any] = {"max_tokens": 3}
    if path == "/v1/chat/completions":
        sound["messages"] = draw(MESSAGES)
    elif path == "/detokenize":
        sound = {"tokens": draw(st.lists(st.integers(-1, 341), max_size=5))}
    elif path == "/tokenize":
        sound = {"prompt": draw(st.text(max_size=20))}
    else:
        ids = st.lists(st.integers(0, 339), min_size=1, max_size=9)
        sound["prompt"] = draw(ids | st.text(max_size=20))
    names = st.sampled_from([*SCHEMAS[path].model_fields, "no_such_field"])
    small = st.integers(0, 17) | st.text(max_size=3) | VALUES
    return sound | draw(st.dictionaries(names, small, max_size=2))


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    made = make_service()
    yield made
    assert made.engine is not None
    made.engine.stop()
    check_pages(made.engine)


@pytest.mark.parametrize("path", SCHEMAS)
@given(data=st.data())
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_body_is_answered_or_refused(service: Service, path: str, data: st.DataObject) -> None:
    content = json.dumps(data.draw(bodies(path))).encode()
    answer = call(service, "POST", path, content=content)
    assert answer.status_code in (200, 400, 404), answer.text
    if answer.status_code != 200:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "content",
    [
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "\xff"}',
        b'{"prompt": [1e400]}',
        b'{"prompt": [true]}',
        b'{"prompt": ' + b"[" * 100_000,
        b'{"prompt": [1], "prompt": {}}',
        b'{"prompt": [1], "seed": 99999999999999999999999}',
        b'{"prompt": [1], "stop": {"a": 1}}',
    ],
)
def test_what_no_json_library_agrees_on_is_a_400(service: Service, content: bytes) -> None:
    assert call(service, "POST", "/v1/completions", content=content).status_code == 400


def test_a_body_is_not_read_beyond_the_cap(service: Service) -> None:
    """A client that never stops sending is answered after 17 parts of a mebibyte."""
    num_sent = 0

    async def receive() -> dict[str, Any]:
        nonlocal num_sent
        num_sent += 1
        return {"type": "http.request", "body": b" " * (1 << 20), "more_body": True}

    assert asyncio.run(answered(service, receive)) == 413
    assert num_sent == 17


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_takes_all_its_choices_along(stream: bool) -> None:
    """It goes at its first token of 3 x 9,000. A later request shows that the engine is past it."""
    service = make_service(num_blocks=3000)
    engine = service.engine
    assert engine is not None
    body = json.dumps(BODY | {"max_tokens": 9000, "n": 3, "stream": stream, "ignore_eos": True})
    parts = iter([{"type": "http.request", "body": body.encode(), "more_body": False}])
    begun = threading.Event()
    engine.listener.token = lambda *_: begun.set()  # type: ignore[method-assign]

    async def receive() -> dict[str, Any]:
        if part := next(parts, None):
            return part
        await asyncio.to_thread(begun.wait)
        return {"type": "http.disconnect"}

    async def leave_and_ask() -> int:
        await answered(service, receive)
        return (await ask(service, "POST", "/v1/completions", json=BODY)).status_code

    assert asyncio.run(leave_and_ask()) == 200
    assert engine.num_running == engine.num_waiting == 0
    ended = {r: service.metrics.total(ENDED, finished_reason=r) for r in ("abort", "length")}
    assert ended == {"abort": 3, "length": 1}
    engine.stop()
    check_pages(engine)


async def answered(service: Service, receive: Any) -> int | None:
    """The status of a POST of that body; None: the client was gone before."""
    statuses: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/completions",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    await make_app(service)(scope, receive, send)
    return statuses[0] if statuses else None
