"""https: the same client over TLS, checked against a certificate made for the test."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from loadkit.client.control import ControlPlane
from loadkit.client.endpoint import Endpoint
from loadkit.client.stream import StreamClient
from loadkit.client.timeouts import Timeouts
from loadkit.core.errors import InputError

BODY = b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        for byte in BODY:
            self.wfile.write(bytes([byte]))

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(certificate, key) for 127.0.0.1, signed by itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


@pytest.fixture
def url(certificate: tuple[Path, Path]) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # polls to stop
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_trusted_server_is_talked_to_and_its_connection_kept(
    url: str, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    client = StreamClient(Endpoint.parse(url))
    request = client.prepare({"messages": []}, session="s")
    responses = [client.send(client.connect(), request) for _ in range(2)]
    client.close()
    assert [(r.outcome, r.text) for r in responses] == [("ok", "Hi")] * 2
    assert responses[0].connect_s is not None
    assert responses[1].connect_s is None


def test_a_certificate_that_nobody_trusts_is_refused(url: str) -> None:
    client = StreamClient(Endpoint.parse(url))
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        client.connect()
    client.close()


def test_the_control_plane_speaks_tls_too(
    url: str, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with ControlPlane(Endpoint.parse(url)) as plane:
        assert plane.reset_prefix_cache() == "reset"
    monkeypatch.delenv("SSL_CERT_FILE")
    with (
        ControlPlane(Endpoint.parse(url)) as plane,
        pytest.raises(InputError, match=r"no answer from the server: .*certificate"),
    ):
        plane.list_models()


def test_a_handshake_that_drips_ends_in_time() -> None:
    """Each byte comes within the time-out; all of them would take minutes."""
    hello = b"\x16\x03\x03\x40\x00"  # a record of 16 KB begins
    stop = threading.Event()

    def drip(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            for byte in hello * 1000:
                if stop.wait(0.05):
                    return
                with suppress(OSError):
                    peer.send(bytes([byte]))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        client = StreamClient(Endpoint.parse(url), timeouts=Timeouts(connect_s=0.3))
        with pytest.raises(OSError):
            client.connect()
        client.close()
        stop.set()
        thread.join()
