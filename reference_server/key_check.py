"""The key is asked for first: who has none is told so before anything of the request is read."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from reference_server.api_errors import ApiError
from reference_server.keys import Keys

PUBLIC_PATHS = frozenset({"/health", "/version"})
PUBLIC_METHODS = ("GET", "HEAD")  # what they say is read, nothing is sent to them


def _count_nothing(status: int) -> None:
    return None


class KeyCheck:
    """ASGI middleware: 401 for every path but PUBLIC_PATHS, known or not, without a key that may
    call at all; 405 there for what is not PUBLIC_METHODS. The `Caller` is in the scope's state as `caller`.

    keys: asked at every request. on_refused: told the status of each refusal.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Callable[[], Keys],
        on_refused: Callable[[int], None] = _count_nothing,
    ) -> None:
        self._app, self._keys, self._on_refused = app, keys, on_refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
            return
        self._on_refused(refusal.status)
        await refusal.response()(scope, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        """None: it may pass, and who it is is in the scope unless the path is open to all."""
        if scope["path"] in PUBLIC_PATHS:
            return None if scope["method"] in PUBLIC_METHODS else _other_method(scope)
        caller = self._keys().caller(_authorization(scope))
        if caller is None:
            return _no_key()
        scope.setdefault("state", {})["caller"] = caller
        return None


def _authorization(scope: Scope) -> str:
    """'' where there is none, or more than one: who it is must not depend on who reads it."""
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    return given[0].decode("latin-1") if len(given) == 1 else ""


def _other_method(scope: Scope) -> ApiError:
    return ApiError(
        405,
        f"Method Not Allowed: {scope['method']} {scope['path']}",
        code="method_not_allowed",
        headers={"Allow": ", ".join(PUBLIC_METHODS)},
    )


def _no_key() -> ApiError:
    return ApiError(
        401,
        "missing or wrong API key: send Authorization: Bearer KEY",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )
