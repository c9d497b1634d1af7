"""TLS between a raw socket and an exchange: bytes in, bytes out, so that both pumps can drive it."""

from __future__ import annotations

import socket
import ssl
import time

RECORD_BYTES = 1 << 16


def tls_context() -> ssl.SSLContext:
    """Checks certificates against the system's, or those that $SSL_CERT_FILE names.

    Costs 30-160 ms: one for a client, never one for a connection.
    """
    return ssl.create_default_context()


class TlsLayer:
    """One connection's TLS state. `closed` once the peer has ended the stream in good order."""

    def __init__(self, context: ssl.SSLContext, host: str):
        self.closed = False
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    def handshake(self, sock: socket.socket, deadline: float) -> None:
        """Over a socket that blocks (or gives way), until a monotonic time. OSError on failure."""
        while True:
            try:
                self._object.do_handshake()
            except ssl.SSLWantReadError:
                if (remaining := deadline - time.monotonic()) <= 0:
                    raise TimeoutError("the TLS handshake took too long") from None
                sock.settimeout(remaining)
                sock.sendall(self._outgoing.read())
                self._feed(sock.recv(RECORD_BYTES))
            except ssl.SSLError:
                sock.sendall(self._outgoing.read())  # the alert that says why
                raise
            else:
                sock.sendall(self._outgoing.read())
                return

    def encrypt(self, data: bytes) -> bytes:
        self._object.write(data)
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> bytes:
        """What `data` completes, often nothing. `data` empty: the peer hung up. OSError if broken."""
        self._feed(data)
        pieces: list[bytes] = []
        try:
            while piece := self._object.read(RECORD_BYTES):
                pieces.append(piece)
            self.closed = True
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self.closed = True
        return b"".join(pieces)

    def take_outgoing(self) -> bytes:
        """What TLS itself has to say (key updates, alerts), b"" nearly always."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def _feed(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
