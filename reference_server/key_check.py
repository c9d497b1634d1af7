"""The key is asked for first: who has none is told so before anything of the request is read."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from reference_server.api_errors import ApiError
from reference_server.keys import Keys

PUBLIC_PATHS = frozenset({"/health", "/version"})


def _count_nothing(status: int) -> None:
    return None


class KeyCheck:
    """ASGI middleware: 401 for every path but PUBLIC_PATHS, known or not, without a key that may
    call at all. The `Caller` is in the scope's state as `caller`.

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
        if scope["type"] != "http" or scope["path"] in PUBLIC_PATHS:
            await self._app(scope, receive, send)
            return
        caller = self._keys().caller(_authorization(scope))
        if caller is None:
            self._on_refused(401)
            await _no_key().response()(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)


def _authorization(scope: Scope) -> str:
    """'' where there is none, or more than one: who it is must not depend on who reads it."""
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    return given[0].decode("latin-1") if len(given) == 1 else ""


def _no_key() -> ApiError:
    return ApiError(
        401,
        "missing or wrong API key: send Authorization: Bearer KEY",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )
