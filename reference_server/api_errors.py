"""Errors as OpenAI error objects: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """An answer other than 200; `code` is for programs, `message` for people."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = headers

    @property
    def body(self) -> dict[str, Any]:
        kind = KINDS.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> Response:
        return JSONResponse(self.body, self.status, headers=self.headers)


def invalid(error: ValidationError) -> ApiError:
    """400 for the first thing that a request says wrong; what it said is not echoed."""
    errors = error.errors(include_url=False, include_input=False)
    first = max(errors, key=lambda e: len(e["loc"]))  # the deepest: of a union, the member meant
    place = ".".join(str(part) for part in first["loc"] if _is_readable(part)) or None
    message = f"{place}: {first['msg']}" if place else str(first["msg"])
    named = first.get("ctx", {}).get("param")  # told by a check of the whole body
    return ApiError(400, message, code="invalid_value", param=place or named)


def _is_readable(part: int | str) -> bool:
    """pydantic names the members of a union in a location, such as `constrained-str`."""
    return isinstance(part, int) or part.isidentifier()


async def on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    message = f"{error.detail}: {request.method} {request.url.path[:200]}"
    headers = dict(error.headers or {})
    return ApiError(error.status_code, message, code=code, headers=headers).response()


async def on_unexpected(request: Request, error: Exception) -> Response:
    return ApiError(500, "internal error", code="internal_error").response()


EXCEPTION_HANDLERS: dict[Any, Any] = {
    ApiError: on_api_error,
    HTTPException: on_http_error,
    Exception: on_unexpected,
}
