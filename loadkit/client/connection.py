"""Keep-alive connections: opened outside the timed span, TCP_NODELAY, TLS from one context.

A connection is opened with plain `socket` calls, which give way to other greenlets once Locust has
patched the process. After that only its raw, non-blocking socket is used, and `pump` does the
waiting.
"""

from __future__ import annotations

import _socket
import socket
import time

from loadkit.client import kernel_time
from loadkit.client.endpoint import Endpoint
from loadkit.client.tls import TlsLayer, tls_context

# Below the 5 s after which uvicorn, llama.cpp and Node close an idle connection.
MAX_IDLE_S = 4.0


class Connection:
    """One socket. `connect_s`: seconds that opening it took, None once it has been used.
    stamped: the kernel says when bytes arrived. looked_at: when nothing of an answer was there for the
    last time. unasked: bytes came that no request had asked for."""

    __slots__ = (
        "connect_s",
        "idle_since",
        "looked_at",
        "reusable",
        "sock",
        "stamped",
        "tls",
        "unasked",
    )

    def __init__(
        self, sock: _socket.socket, connect_s: float, tls: TlsLayer | None, *, stamped: bool
    ):
        self.sock, self.tls, self.stamped = sock, tls, stamped
        self.connect_s: float | None = connect_s
        self.reusable = self.unasked = False
        self.idle_since = self.looked_at = time.monotonic()

    def is_stale(self) -> bool:
        """True when idle too long, or the server has closed it or sent what nobody asked for."""
        self.looked_at = time.monotonic()
        try:
            while self.tls is not None:  # session tickets come when they like, and are no answer
                if self.tls.decrypt(self.sock.recv(1 << 16)):
                    self.unasked = True
                if self.unasked or self.tls.closed:
                    return True
            self.unasked = len(self.sock.recv(1, socket.MSG_PEEK)) > 0
        except BlockingIOError:
            return self.looked_at - self.idle_since > MAX_IDLE_S
        except OSError:
            return True
        return True

    def close(self) -> None:
        self.sock.close()


class ConnectionPool:
    """Idle connections to one endpoint, last used first. Each greenlet holds its own meanwhile.

    num_unasked: connections on which more came than was asked for. An answer that is late by a whole
    request cannot be told from the next one's; this count says that there was one.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        connect_timeout_s: float = 10.0,
        kernel_stamps: bool = True,
    ):
        self.endpoint, self._connect_timeout_s = endpoint, connect_timeout_s
        self._kernel_stamps = kernel_stamps
        self.num_unasked = 0
        self._idle: list[Connection] = []
        self._tls = tls_context() if endpoint.scheme == "https" else None

    def acquire(self) -> Connection:
        """An idle connection, else a new one. OSError (with TimeoutError) when there is none."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_stale():
                return connection
            self.drop(connection)
        return self.open()

    def release(self, connection: Connection) -> None:
        """Keep it for the next request when its last answer ended cleanly, else close it."""
        if not connection.reusable:
            self.drop(connection)
            return
        connection.reusable = False
        connection.connect_s = None
        connection.idle_since = time.monotonic()
        self._idle.append(connection)

    def drop(self, connection: Connection) -> None:
        """Close it for good; what had come on it unasked is counted."""
        self.num_unasked += connection.unasked
        connection.close()

    def close(self) -> None:
        while self._idle:
            connection = self._idle.pop()
            connection.is_stale()  # may bring an answer too many to light
            self.drop(connection)

    def open(self) -> Connection:
        """A new connection. OSError (with TimeoutError) when there is none."""
        start = time.monotonic()
        address = (self.endpoint.host, self.endpoint.port)
        try:
            sock = socket.create_connection(address, timeout=self._connect_timeout_s)
        except UnicodeError as error:
            raise OSError(f"not a host name: {error}") from error
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stamped = self._kernel_stamps and kernel_time.enable(sock)
            tls = self._shake_hands(sock, start + self._connect_timeout_s)
        except BaseException:
            sock.close()
            raise
        raw = _socket.socket(fileno=sock.detach())
        raw.setblocking(False)
        return Connection(raw, time.monotonic() - start, tls, stamped=stamped)

    def _shake_hands(self, sock: socket.socket, deadline: float) -> TlsLayer | None:
        if self._tls is None:
            return None
        tls = TlsLayer(self._tls, self.endpoint.host)
        tls.handshake(sock, deadline)
        return tls
