"""A WSGI wrapper that keeps other people's web pages away from Locust's web interface.

Locust's interface can start and stop a test, answers any origin (open CORS) and has no token
against forged requests. So a page that the engineer happens to visit could drive a load test, also
through a host name of its own that resolves to 127.0.0.1 (DNS rebinding). The wrapper stands before
every route, Locust's own ones too, and needs no change in any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from loadkit.asgi.own_site import OwnSite

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]

HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Content-Security-Policy", "frame-ancestors 'none'"),
    ("Referrer-Policy", "same-origin"),
]


class WebGuard:
    """Answers 403 to requests that do not come from the interface's own pages (see OwnSite).

    app: what to guard. bound_host: the address that the interface is bound to. index_path: the one
    page that a link elsewhere may lead to.
    """

    def __init__(self, app: App, bound_host: str, index_path: str = "/") -> None:
        self._app, self._index_path = app, index_path
        self._site = OwnSite(bound_host)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        refusal = self._refusal(environ)
        if refusal is not None:
            start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"loadkit: {refusal}\n".encode()]
        return self._app(environ, _closing_cors(start_response))

    def _refusal(self, environ: Environ) -> str | None:
        return self._site.refusal(
            environ.get("HTTP_HOST", ""),
            environ.get("HTTP_ORIGIN"),
            environ.get("HTTP_SEC_FETCH_SITE"),
            is_link=self._is_link(environ),
        )

    def _is_link(self, environ: Environ) -> bool:
        """A person followed a link to the first page, which changes nothing."""
        navigates = environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
        return navigates and environ.get("PATH_INFO") == self._index_path


def _closing_cors(start_response: StartResponse) -> StartResponse:
    """`start_response` without the headers that let other origins read the answer."""

    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        kept = [(k, v) for k, v in headers if not k.lower().startswith("access-control-")]
        return start_response(status, kept + HEADERS, *rest)

    return start
