"""schemathesis draws requests from the server's own schemas, sound ones and broken ones: no 500.

Every route of the table, with and without keys, the append-only guard on, and clients that leave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from engine_builders import check_pages
from http_calls import as_key, make_service
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from reference_server.api import ROUTES, make_app
from reference_server.keys import Keys
from reference_server.schema import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)

BODIES: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
}
TEXT = {"type": "string", "maxLength": 300}
PARAMETERS = {
    "/v1/chat/completions": [("header", n) for n in ("x-session-id", "x-parent-session-id",
                                                     "x-append-only-receipt")],
    "/v1/completions": [("header", "x-session-id")],
    "/v1/models/{model:path}": [("path", "model")],
    "/kv_events": [("query", "since"), ("header", "last-event-id")],
}  # fmt: skip
# What the API says (docs/server.md); 500 is not among them.
ALLOWED = {200, 400, 401, 403, 404, 405, 409, 413, 429}
KEYS = {"none": Keys(), "several": Keys(("one", "two"), "boss")}
CALLERS = (None, "one", "boss", "nobody")
# Longer replies would take the time of the tests; other models and ids are refused soon.
CAPS = {"max_tokens": 4, "max_completion_tokens": 4, "min_tokens": 0, "n": 3}
TOKEN_IDS = [0, 5, 339]


def openapi() -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for row in ROUTES:
        made: dict[str, Any] = {"responses": {"200": {"description": "ok"}}, "parameters": []}
        for place, name in PARAMETERS.get(row.path, ()):
            needed = {"required": True} if place == "path" else {}
            made["parameters"].append({"in": place, "name": name, "schema": TEXT} | needed)
        if row.path in BODIES:
            body = {"application/json": {"schema": inlined(BODIES[row.path])}}
            made["requestBody"] = {"required": True, "content": body}
        paths[_open(row.path)] = {row.method.lower(): made}
    return {"openapi": "3.1.0", "info": {"title": "loadkit", "version": "0"}, "paths": paths}


def _open(path: str) -> str:
    """As OpenAPI writes what starlette calls `{name:path}`."""
    return path.replace(":path}", "}")


def inlined(model: type[BaseModel]) -> dict[str, Any]:
    """The model's JSON schema without references; counts that cost time are capped."""
    schema = model.model_json_schema()
    named = schema.pop("$defs", {})

    def resolved(value: Any) -> Any:
        if isinstance(value, list):
            return [resolved(part) for part in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return resolved(named[value["$ref"].rpartition("/")[2]])
        if value.get("exclusiveMaximum") == 2**31:
            return {"enum": TOKEN_IDS}
        return {key: resolved(part) for key, part in value.items()}

    made: dict[str, Any] = resolved(schema)
    for name, cap in CAPS.items():
        if name in made["properties"]:
            made["properties"][name] = {"type": "integer", "minimum": min(1, cap), "maximum": cap}
    made["properties"]["model"] = {"const": "tiny"}
    for choice in made["properties"].get("prompt", {}).get("anyOf", ()):
        choice |= {"minLength": 1} if choice["type"] == "string" else {}
    if "max_tokens" in made["properties"]:
        made.setdefault("required", []).append("max_tokens")
    return made


class Served:
    """One service and its app; the engine runs on its thread."""

    def __init__(self, keys: Keys) -> None:
        self.service = make_service(keys, num_blocks=400)
        self.app = make_app(self.service, append_only="enforce")

    async def ask(self, scope: dict[str, Any], body: bytes, leaves_after: int) -> tuple[int, bytes]:
        """Status and body. The client leaves after that many parts of the answer."""
        parts = [{"type": "http.request", "body": body, "more_body": False}]
        left, seen = asyncio.Event(), []

        async def receive() -> Any:
            if parts:
                return parts.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            seen.append(message)
            if len(seen) > leaves_after:
                left.set()

        await self.app(scope, receive, send)
        said = b"".join(message.get("body", b"") for message in seen[1:])
        return (seen[0]["status"] if seen else 0), said


@pytest.fixture(scope="module", params=KEYS)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    made = Served(KEYS[request.param])
    yield made
    assert made.service.engine is not None
    made.service.engine.stop()
    assert made.service.engine.error is None
    check_pages(made.service.engine)


SCHEMA = schemathesis.openapi.from_dict(openapi())
OPERATIONS = {f"{row.method} {row.path}": SCHEMA[_open(row.path)][row.method] for row in ROUTES}
MODES = {mode.value: mode for mode in schemathesis.GenerationMode}
# A negative case needs something to be wrong.
PLAYED = [
    (name, mode)
    for name in OPERATIONS
    for mode in MODES
    if mode == "positive" or name.partition(" ")[2] in BODIES
]


@pytest.mark.parametrize(("name", "mode"), PLAYED)
def test_no_request_that_the_schema_gives_or_breaks_is_a_500(
    served: Served, name: str, mode: str
) -> None:
    drawn = OPERATIONS[name].as_strategy(generation_mode=MODES[mode])

    @given(case=drawn, key=st.sampled_from(CALLERS), leaves_after=st.sampled_from((1, 1000)))
    @settings(
        max_examples=20 if name.partition(" ")[2] in BODIES else 4,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def play(case: Any, key: str | None, leaves_after: int) -> None:
        scope, body = request_of(case, key)
        is_endless = name.endswith("/kv_events")
        status, said = asyncio.run(served.ask(scope, body, 1 if is_endless else leaves_after))
        assert status in ALLOWED or status == 0, said
        assert b"internal error" not in said

    play()


def request_of(case: Any, key: str | None) -> tuple[dict[str, Any], bytes]:
    """As it would stand in an ASGI scope."""
    import requests

    made = requests.Request(**case.as_transport_kwargs(base_url="http://localhost")).prepare()
    headers = {**made.headers, "host": "localhost", **(as_key(key) if key else {})}
    path, _, query = made.path_url.partition("?")
    body = made.body or b""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": made.method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(k.lower().encode("latin-1"), encoded(v)) for k, v in headers.items()],
    }
    return scope, body.encode() if isinstance(body, str) else body


def encoded(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8")
