"""Who may call a server that asks for no key."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from loadkit.asgi.own_site import SiteGuard


def answer(
    bound: str = "127.0.0.1", *, needed: bool = True, **headers: str
) -> list[dict[str, Any]]:
    """What a guarded application that answers 200 sends; `_` in a header's name stands for `-`."""
    said: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        said.append(message)

    raw = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    guard = SiteGuard(app, bound, lambda: needed)
    asyncio.run(guard({"type": "http", "headers": raw}, None, send))  # type: ignore[arg-type]
    return said


def status(bound: str = "127.0.0.1", *, needed: bool = True, **headers: str) -> int:
    return int(answer(bound, needed=needed, **headers)[0]["status"])


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000"])
def test_programs_on_this_machine_may(host: str) -> None:
    assert status(host=host) == 200


@pytest.mark.parametrize("host", ["evil.example:8000", "", "127.0.0.1.evil.example", "[::1"])
def test_a_name_that_was_pointed_at_loopback_may_not(host: str) -> None:
    assert status(host=host) == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:9", "x:["])
def test_pages_of_other_origins_may_not(origin: str) -> None:
    assert status(host="localhost:8000", origin=origin) == 403


def test_the_origin_of_its_own_pages_may() -> None:
    assert status(host="localhost:8000", origin="http://localhost:8000") == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_requests_that_the_browser_calls_foreign_may_not(site: str) -> None:
    assert status(host="localhost", sec_fetch_site=site) == 403


def test_bound_everywhere_addresses_may_and_names_may_not() -> None:
    assert status("0.0.0.0", host="192.0.2.7:8000") == 200
    assert status("0.0.0.0", host="evil.example:8000") == 403


def test_the_name_that_it_is_bound_to_may() -> None:
    assert status("gpu-box", host="gpu-box:8000") == 200


def test_where_a_key_is_asked_for_nothing_is_checked() -> None:
    assert status(host="evil.example", needed=False) == 200


def test_the_refusal_is_an_openai_error_object() -> None:
    start, body = answer(host="evil.example")
    assert start["headers"] == [(b"content-type", b"application/json")]
    assert json.loads(body["body"])["error"]["code"] == "foreign_site"
