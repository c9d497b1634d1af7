"""The guard's own answers, as OpenAI error objects."""

from __future__ import annotations

import json
from typing import Any

from loadkit.asgi.own_site import Send
from loadkit.asgi.rule import SAID, Violation


def mutated(found: Violation) -> dict[str, Any]:
    message = (
        f"{SAID[found.reason]}: this conversation is append-only. Send the messages unchanged, "
        "or start another conversation (x-parent-session-id names the one it is forked from)."
    )
    return _error(message, found.param, "conversation_mutated")


def too_large(limit: int) -> dict[str, Any]:
    return _error(f"the body is over {limit} bytes", None, "too_large")


def _error(message: str, param: str | None, code: str) -> dict[str, Any]:
    kind = "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


async def refuse(send: Send, status: int, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(data)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})
