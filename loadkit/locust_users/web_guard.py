"""A WSGI wrapper that keeps other people's web pages away from Locust's web interface.

Locust's interface can start and stop a test, answers any origin (open CORS) and has no token
against forged requests. So a page that the engineer happens to visit could drive a load test, also
through a host name of its own that resolves to 127.0.0.1 (DNS rebinding). The wrapper stands before
every route, Locust's own ones too, and needs no change in any of them.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
EVERY_INTERFACE = frozenset({"", "*", "0.0.0.0", "::"})
OWN_PAGES = frozenset({"same-origin", "none"})
HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Content-Security-Policy", "frame-ancestors 'none'"),
    ("Referrer-Policy", "same-origin"),
]


class WebGuard:
    """Answers 403 to requests that do not come from the interface's own pages.

    app: what to guard. bound_host: the address that the interface is bound to; its name and the
    loopback names are allowed in Host. Bound to every interface on purpose, IP addresses and this
    machine's own name are allowed as well: a rebinding page cannot have those as its host.
    index_path: the one page that a link elsewhere may lead to.
    """

    def __init__(self, app: App, bound_host: str, index_path: str = "/") -> None:
        self._app = app
        self._index_path = index_path
        self._anywhere = bound_host in EVERY_INTERFACE
        own = {socket.gethostname().lower()} if self._anywhere else {bound_host.lower()}
        self._names = LOOPBACK | own

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        refusal = self._refusal(environ)
        if refusal is not None:
            start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"loadkit: {refusal}\n".encode()]
        return self._app(environ, _closing_cors(start_response))

    def _refusal(self, environ: Environ) -> str | None:
        host = environ.get("HTTP_HOST", "")
        if not self._is_ours(host):
            return "this Host is not a name of this web interface"
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None and _netloc(origin) != host.lower():
            return "requests from other origins are not accepted"
        if environ.get("HTTP_SEC_FETCH_SITE", "none") in OWN_PAGES or self._is_link(environ):
            return None
        return "requests from other sites are not accepted"

    def _is_link(self, environ: Environ) -> bool:
        """A person followed a link to the first page, which changes nothing."""
        navigates = environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
        return navigates and environ.get("PATH_INFO") == self._index_path

    def _is_ours(self, host: str) -> bool:
        name = _hostname(host)
        if name is None:
            return False
        return name in self._names or (self._anywhere and _is_address(name))


def _closing_cors(start_response: StartResponse) -> StartResponse:
    """`start_response` without the headers that let other origins read the answer."""

    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        kept = [(k, v) for k, v in headers if not k.lower().startswith("access-control-")]
        return start_response(status, kept + HEADERS, *rest)

    return start


def _hostname(host: str) -> str | None:
    """The name in a Host header, lower case, without port or brackets; None if it is not one."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _netloc(origin: str) -> str | None:
    """host:port of an Origin header; None for `null` and what is no http origin."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
