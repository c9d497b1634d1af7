"""Who may talk to the web interface."""

from __future__ import annotations

from typing import Any

import pytest

from loadkit.locust_users.web_guard import WebGuard


def answer(bound: str = "127.0.0.1", path: str = "/swarm", **headers: str) -> tuple[str, list]:
    """Status and headers of a request through a guard before an application with open CORS."""
    said: list[Any] = []

    def open_app(environ, start_response):
        start_response(
            "200 OK",
            [("Access-Control-Allow-Origin", "*"), ("Content-Type", "text/plain")],
        )
        return [b"done"]

    environ = {"PATH_INFO": path, "REQUEST_METHOD": "POST"}
    environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    body = WebGuard(open_app, bound)(environ, lambda *given: said.extend(given))
    assert (said[0] == "200 OK") == (b"".join(body) == b"done")
    return said[0], said[1]


def status(*args: Any, **headers: str) -> int:
    return int(answer(*args, **headers)[0].split()[0])


@pytest.mark.parametrize("host", ["127.0.0.1:8089", "localhost:8089", "LOCALHOST", "[::1]:8089"])
def test_loopback_names_may(host):
    assert status(host=host) == 200


@pytest.mark.parametrize(
    "host", ["evil.example:8089", "", "127.0.0.1.evil.example", "[::1", "192.0.2.7:8089", "a b"]
)
def test_other_host_names_may_not(host):
    assert status(host=host) == 403


def test_a_missing_host_may_not():
    assert status() == 403


def test_the_bound_name_may():
    assert status("load.internal", host="load.internal:8089") == 200
    assert status("load.internal", host="other.internal:8089") == 403


def test_bound_to_every_interface_addresses_may_and_names_that_could_be_rebound_may_not():
    assert status("", host="192.0.2.7:8089") == 200
    assert status("", host="evil.example:8089") == 403


def test_only_the_own_origin_may():
    host = "127.0.0.1:8089"
    assert status(host=host, origin="http://127.0.0.1:8089") == 200
    assert status(host=host, origin="https://evil.example") == 403
    assert status(host=host, origin="http://127.0.0.1:3000") == 403, "another port"
    assert status(host=host, origin="null") == 403
    assert status(host=host, origin="http://[::1") == 403


def test_other_sites_may_not_even_without_an_origin():
    # An <img> sends no Origin. Earlier versions of Locust reset and stopped on a plain GET.
    host = "127.0.0.1:8089"
    assert status(path="/stats/reset", host=host, sec_fetch_site="cross-site") == 403
    assert status(path="/stats/reset", host=host, sec_fetch_site="same-site") == 403
    assert status(path="/stats/reset", host=host, sec_fetch_site="same-origin") == 200


def test_a_link_to_the_first_page_may_but_to_no_other():
    link = {"host": "localhost:8089", "sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert status(path="/", **link) == 200
    assert status(path="/stats/reset", **link) == 403


def test_answers_lose_the_open_cors_headers_and_cannot_be_framed():
    names = {name.lower(): value for name, value in answer(host="localhost")[1]}
    assert not [name for name in names if name.startswith("access-control")]
    assert names["x-frame-options"] == "DENY"
    assert names["content-type"] == "text/plain"
