"""A server that says exactly the bytes it is told to, at the times it is told to. One connection
after the other; it reads a request, then plays its steps, then closes unless told to stay."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

Step = bytes | float | Callable[[socket.socket], None]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED_HEAD = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class ByteServer:
    """steps: bytes to send, floats: seconds to wait, functions: called with the connection. stay: keep the connection for the next
    request. requests: what was received; sent_at: monotonic time just before each send."""

    def __init__(self, steps: Sequence[Step], *, stay: bool):
        self.steps, self.stay = steps, stay
        self.requests: list[bytes] = []
        self.sent_at: list[float] = []
        self.num_connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._closed = threading.Event()
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.num_connections += 1
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        try:
            while request := _read_request(connection):
                self.requests.append(request)
                self._play(connection)
                if not self.stay:
                    return
        except OSError:
            return

    def _play(self, connection: socket.socket) -> None:
        for step in self.steps:
            if isinstance(step, float):
                if self._closed.wait(step):
                    return
            elif callable(step):
                step(connection)
            else:
                self.sent_at.append(time.monotonic())
                connection.sendall(step)

    def close(self) -> None:
        self._closed.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    _, given, rest = head.lower().partition(b"content-length:")
    length = int(rest.split(b"\r\n")[0]) if given else 0
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def byte_server(*steps: Step, stay: bool = False) -> Iterator[ByteServer]:
    server = ByteServer(steps, stay=stay)
    try:
        yield server
    finally:
        server.close()


def reset(connection: socket.socket) -> None:
    """Close with a RST instead of a FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def half_close(connection: socket.socket) -> None:
    """Say that no more will come, and stay."""
    connection.shutdown(socket.SHUT_WR)


def chunked(*pieces: bytes) -> list[bytes]:
    """Each piece as one HTTP chunk, then the last chunk."""
    return [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]


def sized(body: bytes, status: bytes = b"200 OK", kind: bytes = b"text/event-stream") -> bytes:
    head = b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (status, kind, len(body)) + body
