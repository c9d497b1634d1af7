"""The control plane against a small HTTP server: what it reads, and what it says when it cannot."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from loadkit.client.control import ControlPlane, ModelCard
from loadkit.client.endpoint import Endpoint
from loadkit.client.secret import Secret
from loadkit.core.errors import InputError

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


@pytest.mark.parametrize("answer", [(503, "loading"), (200, "not json"), (200, [1])])
def test_an_answer_that_is_no_model_list_is_an_input_error(answer: tuple[int, Any]) -> None:
    with control({("GET", "/v1/models"): answer}) as plane, pytest.raises(InputError):
        plane.list_models()


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
