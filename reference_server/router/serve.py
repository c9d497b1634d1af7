"""`loadkit serve --replicas N`: the router's process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from loadkit.asgi import AppendOnly
from loadkit.asgi.own_site import SiteGuard
from reference_server.key_check import KeyCheck
from reference_server.keys import Keys
from reference_server.listening import DRAIN_S, bind, end_with, http_config, url_of
from reference_server.router.fleet import Fleet, Replica
from reference_server.router.keeper import Keeper
from reference_server.router.processes import COMMAND, replicas
from reference_server.router.proxy import Router
from reference_server.router.routing import make_routing


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """options: of each replica's `loadkit serve`. keys: the replicas' too, asked for here first.

    drain_s: how long SIGTERM lets requests go on; then they end as 503.
    """

    options: Sequence[Sequence[str]]
    routing: str = "prefix-aware"
    host: str = "127.0.0.1"
    port: int = 8000
    append_only: str = "off"
    keys: Keys = field(default_factory=Keys)
    exit_with_parent: bool = False
    drain_s: float = DRAIN_S
    seed: int = 0
    command: Sequence[str] = field(default=COMMAND)


def serve(settings: RouterSettings) -> None:
    """Serve until SIGTERM or SIGINT; then answer what is in flight, and end the replicas.

    Prints `loadkit serve: ready on URL` once all replicas are ready. InputError for an address that
    cannot be bound, a routing that is none, or a replica that does not start.
    """
    if settings.exit_with_parent:
        end_with(os.getppid())
    routing = make_routing(settings.routing, len(settings.options), settings.seed)
    listener = bind(settings.host, settings.port)
    fleet = Fleet([Replica(index, "") for index in range(len(settings.options))])
    router = Router(fleet, routing)
    app = guarded(router, settings)  # a wrong mode is told before anything is loaded
    behind = replicas(settings.options, settings.command, settings.drain_s)
    with listener, behind as (processes, urls):
        for replica, url in zip(fleet.replicas, urls, strict=True):
            replica.url = url
        router.keeper = Keeper(
            processes,
            fleet.replicas,
            router.started_again,
            is_stopping=lambda: router.is_draining,
        )
        signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again after its drain
        print(f"loadkit serve: ready on {url_of(listener)}", flush=True)
        _Server(app, router, settings.drain_s).run(sockets=[listener])


def guarded(router: Router, settings: RouterSettings) -> ASGIApp:
    """The append-only guard stands here and not in the replicas: it sees every conversation whole,
    and only those of callers with a key."""
    guard = AppendOnly(router, mode=settings.append_only, registry=router.metrics.registry)
    app = KeyCheck(guard, lambda: settings.keys)
    return SiteGuard(app, settings.host, lambda: not settings.keys.are_set)


class _Server(uvicorn.Server):
    """uvicorn that tells the router when the drain begins, and when it is over."""

    def __init__(self, app: ASGIApp, router: Router, drain_s: float) -> None:
        super().__init__(http_config(app, drain_s, lifespan="on"))
        self._router, self._drain_s = router, drain_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self._router.is_draining:
            over = threading.Timer(self._drain_s, self._router.end_requests)
            over.daemon = True
            over.start()
        self._router.is_draining = True
        super().handle_exit(sig, frame)
