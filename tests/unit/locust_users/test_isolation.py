"""A reset is believed when the server says so and a prompt from before is no longer cached."""

from __future__ import annotations

from typing import Any, cast

import pytest
from test_wire import SETTINGS

from loadkit.client.answer import Response
from loadkit.client.control import ControlPlane
from loadkit.client.endpoint import Endpoint
from loadkit.client.usage import Usage
from loadkit.core.errors import CannotMeasure, InputError
from loadkit.locust_users import isolation
from loadkit.locust_users.isolation import reset_and_verify


class Server:
    """Control plane and client of a server that reports `cached` tokens, probe after probe."""

    def __init__(self, outcome: str, *cached: int | None):
        self.endpoint = Endpoint.parse("http://h")
        self.outcome, self.cached, self.calls = outcome, list(cached), list[str]()

    def reset_prefix_cache(self) -> str:
        self.calls.append("reset")
        return self.outcome

    def prepare(self, *_: Any, **__: Any) -> bytes:
        return b""

    def connect(self) -> object:
        return object()

    def send(self, *_: Any) -> Response:
        self.calls.append("probe")
        return Response("ok", usage=Usage(100, 1, self.cached.pop(0)))

    def close(self) -> None:
        self.calls.append("close")


def reset(server: Server, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(isolation, "StreamClient", lambda *_, **__: server)
    return reset_and_verify(cast(ControlPlane, server), SETTINGS, None)


def test_the_probe_itself_is_emptied_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server("reset", 0, 0)
    (note,) = reset(server, monkeypatch)
    assert "shows" in note
    assert server.calls == ["probe", "reset", "probe", "close", "reset"]


def test_a_server_that_says_so_and_does_not_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotMeasure, match="96 tokens of a prompt from before it"):
        reset(Server("reset", 0, 96), monkeypatch)


def test_without_cached_tokens_only_the_word_of_the_server_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (note,) = reset(Server("reset", None, None), monkeypatch)
    assert "did not report" in note


def test_a_probe_without_an_answer_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server("reset")
    failed = Response("http_error", status=500, error="out of memory")
    monkeypatch.setattr(server, "send", lambda *_: failed)
    with pytest.raises(CannotMeasure, match="got no answer: out of memory"):
        reset(server, monkeypatch)


@pytest.mark.parametrize(
    ("outcome", "error"), [("unsupported", InputError), ("refused", CannotMeasure)]
)
def test_a_server_that_cannot_or_will_not(
    outcome: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(error):
        reset(Server(outcome, 0, 0), monkeypatch)
