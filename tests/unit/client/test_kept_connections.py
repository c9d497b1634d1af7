"""A kept connection that the server closes while our next request is on its way."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from loadkit.client import stream
from loadkit.client.answer import Response
from loadkit.client.endpoint import Endpoint
from loadkit.client.stream import StreamClient

BODY = b'{"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
ANSWER = HEAD % len(BODY) + BODY


class HangsUp:
    """Answers one request a connection. The first it closes, without a word, when told to."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.close_now, self.closed = threading.Event(), threading.Event()
        self.accepted = 0

    def run(self) -> None:
        self._answer_one(self.close_now)
        self.closed.set()
        self.listener.settimeout(10)
        try:
            self._answer_one(None)
        except OSError:  # nobody came a second time
            return

    def _answer_one(self, until: threading.Event | None) -> None:
        connection, _ = self.listener.accept()
        self.accepted += 1
        with connection:
            connection.recv(1 << 16)
            connection.sendall(ANSWER)
            if until is not None:
                until.wait(10)


@contextmanager
def hangs_up() -> Iterator[HangsUp]:
    server = HangsUp()
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.close_now.set()
        server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()
        thread.join()


def second_answer(server: HangsUp) -> Response:
    client = StreamClient(Endpoint.parse(server.url))
    try:
        request = client.prepare({"messages": []}, session="s")
        assert client.send(client.connect(), request).outcome == "ok"
        kept = client.connect()  # not closed yet
        assert kept.connect_s is None
        server.close_now.set()
        assert server.closed.wait(10)
        return client.send(kept, request)
    finally:
        client.close()


def test_a_request_that_crossed_the_servers_close_goes_out_again() -> None:
    with hangs_up() as server:
        response = second_answer(server)
    assert (response.outcome, response.text) == ("ok", "hi")
    assert response.resent, "the first copy may have been computed all the same"
    assert server.accepted == 2


def test_what_the_server_may_have_read_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "CLOSING_S", 0.0)
    with hangs_up() as server:
        response = second_answer(server)
    assert response.outcome == "cut"
    assert not response.resent
    assert server.accepted == 1
