"""What the server's and the router's process have in common: socket, HTTP settings, parent."""

from __future__ import annotations

import math
import os
import socket
import sys
import threading
import time
from typing import Literal

import uvicorn
from starlette.types import ASGIApp

from loadkit.core.errors import InputError
from reference_server.bounded_head import BoundedHead

KEEP_ALIVE_S, DRAIN_S = 120, 30
LAST_WORDS_S = 5  # for the errors of what a drain ended
PARENT_POLL_S = 0.5


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; its port is real even where 0 was asked for. InputError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen: {error}", where=f"--host {host} --port {port}") from error
    return listener


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def http_config(app: ASGIApp, drain_s: float, lifespan: Literal["on", "off"]) -> uvicorn.Config:
    """No WebSockets: key and site are checked of HTTP requests. drain_s: see ServerSettings."""
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan=lifespan,
        server_header=False,
        http=BoundedHead,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(drain_s) + LAST_WORDS_S,
    )


def end_with(parent: int) -> None:
    """End this process when the one that started it is gone: nobody is left to be served."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_S)
        print("loadkit serve: the parent process is gone", file=sys.stderr, flush=True)
        os._exit(0)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
