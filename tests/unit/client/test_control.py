"""The control plane against a small HTTP server: what it reads, and what it says when it cannot."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from byte_server import Step, byte_server

from loadkit.client.control import ControlPlane, ModelCard, NotListed
from loadkit.client.endpoint import Endpoint
from loadkit.client.secret import Secret
from loadkit.core.errors import InputError
from loadkit.locust_users.preparing import served_model

Routes = dict[tuple[str, str], tuple[int, Any]]


@contextmanager
def control(routes: Routes, key: Secret | None = None) -> Iterator[ControlPlane]:
    """A server that answers with `routes` (404 elsewhere), and a control plane for it."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            status, body = routes.get((self.command, self.path), (404, ""))
            if (self.command, self.path) == ("GET", "/echo"):
                status, body = 200, self.headers.get("Authorization", "")
            data = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _answer

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # polls to stop
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}"
            with ControlPlane(Endpoint.parse(url), key=key) as plane:
                yield plane
        finally:
            server.shutdown()
            thread.join()


def models(*rows: Any) -> Routes:
    return {("GET", "/v1/models"): (200, {"object": "list", "data": list(rows)})}


def test_a_plain_model_card_knows_its_name_only() -> None:
    with control(models({"id": "m", "object": "model"})) as plane:
        assert plane.list_models() == [ModelCard("m")]


def test_the_reference_servers_card_describes_its_cache() -> None:
    own = {"block_size": 16, "num_blocks": 2048, "tokenizer_fingerprint": "ab12"}
    with control(models({"id": "m", "max_model_len": 8192, "loadkit": own})) as plane:
        assert plane.list_models() == [ModelCard("m", 8192, 16, 2048, "ab12", True)]


def test_vllm_is_known_to_return_token_ids() -> None:
    with control(models({"id": "m", "owned_by": "vllm"})) as plane:
        assert plane.list_models()[0].returns_token_ids


def test_rows_that_are_no_models_are_left_out() -> None:
    with control(models("m", {"id": 3}, {"id": "real"})) as plane:
        assert [card.id for card in plane.list_models()] == ["real"]


def test_a_server_without_a_models_route_lists_none() -> None:
    with control({}) as plane:
        assert plane.list_models() == []


def test_nobody_there_names_the_address_and_what_to_check() -> None:
    with (
        ControlPlane(Endpoint.parse("http://127.0.0.1:9")) as plane,
        pytest.raises(InputError, match=r"http://127\.0\.0\.1:9: no answer .*is it running"),
    ):
        plane.list_models()
    with ControlPlane(Endpoint.parse("http://127.0.0.1:9")) as plane:
        assert plane.prefix_counters() is None


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_says_how_to_give_one_and_does_not_show_it(status: int) -> None:
    routes: Routes = {("GET", "/v1/models"): (status, {"error": "no"})}
    with control(routes, Secret("sk-canary")) as plane:
        with pytest.raises(InputError, match="LOADKIT_API_KEY") as caught:
            plane.list_models()
        assert "canary" not in str(caught.value)


def test_an_error_that_repeats_the_key_is_shown_without_it() -> None:
    routes: Routes = {("GET", "/v1/models"): (500, "got Bearer sk-canary")}
    with (
        control(routes, Secret("sk-canary")) as plane,
        pytest.raises(InputError, match=r"got Bearer \*\*\*"),
    ):
        plane.list_models()


DEEP = "[" * 500 + "]" * 500
UNLISTED = [
    (503, "loading"),
    (500, {"error": "boom"}),
    (200, "not json"),
    (200, [1]),
    (200, '{"data": [{"id": "half \\ud83d"}]}'),
    (200, f'{{"data": {DEEP}}}'),
    (200, f'{{"data": {"[" * 200_000}'),
    (200, '{"data": ' + "9" * 5000 + "}"),
]


@pytest.mark.parametrize("answer", UNLISTED)
def test_an_answer_that_is_no_model_list_is_an_input_error(answer: tuple[int, Any]) -> None:
    with control({("GET", "/v1/models"): answer}) as plane:
        with pytest.raises(NotListed, match=r"no list of models: .*--model"):
            plane.list_models()
        assert plane.models_unread is not None


@pytest.mark.parametrize("answer", UNLISTED)
def test_a_list_that_cannot_be_read_stops_nobody_who_names_the_model(
    answer: tuple[int, Any],
) -> None:
    with control({("GET", "/v1/models"): answer}) as plane:
        assert served_model(plane, "mine", "http://h") == ModelCard("mine")
        with pytest.raises(NotListed):
            served_model(plane, None, "http://h")


@pytest.mark.parametrize("name", ["", "x" * 300, "two\nlines", "\x1b[31mred"])
def test_a_name_that_no_table_can_show_is_no_models(name: str) -> None:
    with control(models({"id": name}, {"id": "real"})) as plane:
        assert [card.id for card in plane.list_models()] == ["real"]


def test_numbers_that_cannot_be_are_not_told() -> None:
    own = {"block_size": 1 << 70, "num_blocks": -1}
    with control(models({"id": "m", "max_model_len": 1e300, "loadkit": own})) as plane:
        assert plane.list_models() == [ModelCard("m", returns_token_ids=True)]


HEADS = b"HTTP/1.1 200 OK\r\n"
CALLS: list[Callable[[ControlPlane], object]] = [
    ControlPlane.list_models,
    ControlPlane.reset_prefix_cache,
    lambda plane: plane.num_tokens({"prompt": "x"}),
]


@contextmanager
def flooding(monkeypatch: pytest.MonkeyPatch, *steps: Step) -> Iterator[ControlPlane]:
    """A server that says exactly these bytes; 0.3 s and 1 MiB are enough for any answer."""
    monkeypatch.setattr("loadkit.client.control.CONTROL_TIMEOUT_S", 0.3)
    monkeypatch.setattr("loadkit.client.control.MAX_CONTROL_BYTES", 1 << 20)
    with byte_server(*steps) as server, ControlPlane(Endpoint.parse(server.url)) as plane:
        yield plane


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([HEADS, *[0.05, b"X"] * 200], "no complete answer within 0.3 s"),
        ([HEADS + b"\r\n", *[0.05, b"{"] * 200], "no complete answer within 0.3 s"),
        ([30.0], "no complete answer within 0.3 s"),
        ([HEADS + b"\r\n", *[b"x" * 100_000] * 100], "larger than 1 MiB"),
        ([HEADS + b"Content-Length: 9\r\n\r\n{"], "in the middle"),
        ([HEADS + b"Content-Encoding: gzip\r\nContent-Length: 0\r\n\r\n"], "gzip"),
        ([b"\0"], "not HTTP"),
        ([], "closed before an answer"),
    ],
)
def test_every_call_ends_in_time_and_size_and_says_why(
    call: Callable[[ControlPlane], object],
    steps: list[Step],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with flooding(monkeypatch, *steps) as plane, pytest.raises(InputError, match=says):
        call(plane)


def test_metrics_that_never_end_are_not_read_and_the_reason_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with flooding(monkeypatch, HEADS + b"\r\n", *[0.05, b"#"] * 200) as plane:
        assert plane.prefix_counters() is None
        assert plane.metrics_unread is not None
        assert "no complete answer within 0.3 s" in plane.metrics_unread
    with control({("GET", "/metrics"): (500, "engine died")}) as plane:
        assert plane.cache_setup() is None
        assert plane.metrics_unread == "/metrics answered 500: engine died"
    with control({}) as plane:
        assert plane.cache_setup() is None
        assert plane.metrics_unread is None


def test_a_tokenize_call_that_says_no_count_is_told_apart_from_none() -> None:
    def counted(status: int, body: Any) -> int | None:
        with control({("POST", "/tokenize"): (status, body)}) as plane:
            return plane.num_tokens({"prompt": "x"})

    assert counted(200, {"count": 7}) == 7
    assert counted(404, "") is None
    assert counted(200, {"count": 1 << 70}) is None
    assert counted(200, {"count": True}) is None
    with pytest.raises(InputError, match="/tokenize answered 500"):
        counted(500, "boom")


@pytest.mark.parametrize(
    ("routes", "outcome"),
    [
        ({("POST", "/reset_prefix_cache"): (200, {"success": True})}, "reset"),
        ({("POST", "/reset_prefix_cache"): (200, "")}, "reset"),
        ({("POST", "/reset_prefix_cache"): (200, {"success": False})}, "refused"),
        ({("POST", "/reset_prefix_cache"): (500, "")}, "refused"),
        ({("POST", "/flush_cache"): (200, "Cache flushed.")}, "reset"),
        ({("POST", "/flush_cache"): (400, "busy")}, "refused"),
        ({}, "unsupported"),
    ],
)
def test_a_reset_is_what_the_body_says_it_is(routes: Routes, outcome: str) -> None:
    with control(routes) as plane:
        assert plane.reset_prefix_cache() == outcome


def test_metrics_are_read_when_there_are_any() -> None:
    page = "vllm:prefix_cache_queries_total 10\nvllm:prefix_cache_hits_total 4\n"
    with control({("GET", "/metrics"): (200, page)}) as plane:
        counters = plane.prefix_counters()
        assert counters is not None
        assert counters.hits == 4
    with control({("GET", "/metrics"): (501, "off")}) as plane:
        assert plane.prefix_counters() is None
