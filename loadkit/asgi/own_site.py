"""Keeps other people's web pages away from a server that asks for no key.

A page that the engineer happens to visit can send requests to any port of the machine, and, through
a host name of its own that resolves to 127.0.0.1 (DNS rebinding), read the answers too. A browser
cannot forge Host, Origin and Sec-Fetch-Site, so they tell such requests from all others.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
EVERY_INTERFACE = frozenset({"", "*", "0.0.0.0", "::"})
OWN_PAGES = frozenset({"same-origin", "none"})

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class OwnSite:
    """Which requests come from this site's own pages, or from no page at all.

    bound_host: the address that the server is bound to; its name and the loopback names are allowed
    in Host. Bound to every interface on purpose, IP addresses and this machine's own name are
    allowed as well: a rebinding page cannot have those as its host.
    """

    def __init__(self, bound_host: str) -> None:
        self._anywhere = bound_host in EVERY_INTERFACE
        own = socket.gethostname() if self._anywhere else bound_host
        self._names = LOOPBACK | {own.lower()}

    def refusal(
        self, host: str, origin: str | None, fetch_site: str | None, *, is_link: bool = False
    ) -> str | None:
        """Why a request with these headers is refused; None: it may pass.

        origin and fetch_site are None when the header is not there, as from any program that is no
        browser. is_link: a person followed a link to a page that changes nothing.
        """
        if not self._is_ours(host):
            return "this Host is not a name of this server"
        if origin is not None and _netloc(origin) != host.lower():
            return "requests from other origins are not accepted"
        if fetch_site is None or fetch_site in OWN_PAGES or is_link:
            return None
        return "requests from other sites are not accepted"

    def _is_ours(self, host: str) -> bool:
        name = _hostname(host)
        if name is None:
            return False
        return name in self._names or (self._anywhere and _is_address(name))


class SiteGuard:
    """ASGI middleware: answers 403 to what `OwnSite` refuses, with an OpenAI error object.

    is_needed is asked at every request, so a server can lift the guard once a key is set: a page
    cannot know the key.
    """

    def __init__(
        self, app: App, bound_host: str, is_needed: Callable[[], bool] = lambda: True
    ) -> None:
        self._app, self._is_needed = app, is_needed
        self._site = OwnSite(bound_host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        if scope["type"] == "http" and self._is_needed():
            header = {name: value.decode("latin-1") for name, value in scope["headers"]}
            refusal = self._site.refusal(
                header.get(b"host", ""), header.get(b"origin"), header.get(b"sec-fetch-site")
            )
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await _forbid(refusal, send)


async def _forbid(refusal: str, send: Send) -> None:
    error = {
        "message": f"{refusal}; a server with an API key accepts them",
        "type": "permission_error",
        "param": None,
        "code": "foreign_site",
    }
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": error}).encode()})


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
