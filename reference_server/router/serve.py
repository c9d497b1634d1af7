"""`loadkit serve --replicas N`: the router's process."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from loadkit.asgi import AppendOnly
from loadkit.asgi.own_site import SiteGuard
from reference_server.router.fleet import Fleet, Replica
from reference_server.router.processes import COMMAND, replicas
from reference_server.router.proxy import Router
from reference_server.router.routing import make_routing
from reference_server.server import DRAIN_S, KEEP_ALIVE_S, _bind, _url, _watch_parent


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """options: of each replica's `loadkit serve`. has_key: the replicas ask for an API key."""

    options: Sequence[Sequence[str]]
    routing: str = "prefix-aware"
    host: str = "127.0.0.1"
    port: int = 8000
    append_only: str = "off"
    has_key: bool = False
    exit_with_parent: bool = False
    seed: int = 0
    command: Sequence[str] = field(default=COMMAND)


def serve(settings: RouterSettings) -> None:
    """Serve until SIGTERM or SIGINT; then answer what is in flight, and end the replicas.

    Prints `loadkit serve: ready on URL` once all replicas are ready. InputError for an address that
    cannot be bound, a routing that is none, or a replica that does not start.
    """
    if settings.exit_with_parent:
        _watch_parent(os.getppid())
    routing = make_routing(settings.routing, len(settings.options), settings.seed)
    listener = _bind(settings.host, settings.port)
    fleet = Fleet([Replica(index, "") for index in range(len(settings.options))])
    router = Router(fleet, routing)
    app = guarded(router, settings)  # a wrong mode is told before anything is loaded
    with listener, replicas(settings.options, settings.command) as urls:
        for replica, url in zip(fleet.replicas, urls, strict=True):
            replica.url = url
        signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again after its drain
        print(f"loadkit serve: ready on {_url(listener)}", flush=True)
        _run(app, router, listener)


def guarded(router: Router, settings: RouterSettings) -> ASGIApp:
    """The append-only guard stands here and not in the replicas: it sees every conversation whole."""
    guard = AppendOnly(router, mode=settings.append_only, registry=router.metrics.registry)
    return SiteGuard(guard, settings.host, lambda: not settings.has_key)


def _run(app: ASGIApp, router: Router, listener: socket.socket) -> None:
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="on",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    _Server(config, router).run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn that tells the router when the drain begins."""

    def __init__(self, config: uvicorn.Config, router: Router) -> None:
        super().__init__(config)
        self._router = router

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._router.is_draining = True
        super().handle_exit(sig, frame)
