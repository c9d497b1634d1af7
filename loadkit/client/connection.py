"""Keep-alive connections: opened outside the timed span, TCP_NODELAY, TLS from one context.

Plain `socket`: once Locust has patched the process these calls give way to other greenlets.
"""

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path

from loadkit.client.endpoint import Endpoint
from loadkit.core.errors import InputError

# Below the 5 s after which uvicorn, llama.cpp and Node close an idle connection.
MAX_IDLE_S = 4.0


class Connection:
    """One socket. `connect_s`: seconds that opening it took, None once it has been used."""

    __slots__ = ("connect_s", "idle_since", "reusable", "sock")

    def __init__(self, sock: socket.socket, connect_s: float):
        self.sock = sock
        self.connect_s: float | None = connect_s
        self.reusable = False
        self.idle_since = time.monotonic()

    def is_stale(self) -> bool:
        """True when idle too long, or the server has closed it or sent what nobody asked for."""
        if time.monotonic() - self.idle_since > MAX_IDLE_S:
            return True
        if isinstance(self.sock, ssl.SSLSocket):
            return False  # TLS sockets cannot be peeked at
        self.sock.settimeout(0.0)
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        self.sock.close()


def tls_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """Checks certificates against `ca_file`, else against the system's. InputError without one.

    Costs 30-160 ms: one for a client, never one for a connection.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise InputError(
            f"no certificates to trust: {error}", where=ca_file, remedy="give a PEM file"
        ) from error


class ConnectionPool:
    """Idle connections to one endpoint, last used first. Each greenlet holds its own meanwhile."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        connect_timeout_s: float = 10.0,
        ca_file: Path | None = None,
    ):
        self.endpoint, self._connect_timeout_s = endpoint, connect_timeout_s
        self._idle: list[Connection] = []
        self._tls = tls_context(ca_file) if endpoint.scheme == "https" else None

    def acquire(self) -> Connection:
        """An idle connection, else a new one. OSError (with TimeoutError) when there is none."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_stale():
                return connection
            connection.close()
        return self._open()

    def release(self, connection: Connection) -> None:
        """Keep it for the next request when its last answer ended cleanly, else close it."""
        if not connection.reusable:
            connection.close()
            return
        connection.reusable = False
        connection.connect_s = None
        connection.idle_since = time.monotonic()
        self._idle.append(connection)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _open(self) -> Connection:
        start = time.monotonic()
        address = (self.endpoint.host, self.endpoint.port)
        sock = socket.create_connection(address, timeout=self._connect_timeout_s)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_hostname=self.endpoint.host)
        except BaseException:
            sock.close()
            raise
        return Connection(sock, time.monotonic() - start)
