"""The HTTP routes: OpenAI's completions, vLLM's extras, all behind one table of who may call."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from loadkit import __version__
from loadkit.asgi.own_site import SiteGuard
from reference_server.api_errors import EXCEPTION_HANDLERS, ApiError, invalid
from reference_server.engine import EngineDead
from reference_server.metrics import CONTENT_TYPE
from reference_server.responses import GenerationResponse, Shape, StreamedGeneration
from reference_server.schema import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from reference_server.service import READY, Service

MAX_BODY_BYTES = 16 << 20
PUBLIC, KEY = "public", "key"
Body = TypeVar("Body", bound=BaseModel)
Handler = Callable[[Service, Request], Awaitable[ASGIApp]]


async def chat_completions(service: Service, request: Request) -> ASGIApp:
    return await _generate(service, request, await _body(request, ChatRequest))


async def completions(service: Service, request: Request) -> ASGIApp:
    return await _generate(service, request, await _body(request, CompletionRequest))


async def _generate(
    service: Service, http: Request, body: ChatRequest | CompletionRequest
) -> ASGIApp:
    generation, request = await service.submit(body, http.headers.get("x-session-id"))
    engine, _ = service.require_ready()
    shape = Shape(
        chat=isinstance(body, ChatRequest),
        model=service.model_name,
        include_usage=body.include_usage,
        token_ids=body.return_token_ids,
    )
    kind = StreamedGeneration if body.stream else GenerationResponse
    return kind(engine, generation, request, shape)


async def models(service: Service, request: Request) -> Response:
    engine, _ = service.require_ready()
    model = {
        "id": service.model_name,
        "object": "model",
        "created": 0,
        "owned_by": "loadkit",
        "max_model_len": engine.runner.max_model_len,
        "loadkit": {
            "block_size": engine.settings.block_size,
            "num_blocks": engine.settings.num_blocks,
            "tokenizer_fingerprint": service.fingerprint,
        },
    }
    return JSONResponse({"object": "list", "data": [model]})


async def tokenize(service: Service, request: Request) -> Response:
    engine, _ = service.require_ready()
    body = await _body(request, TokenizeRequest)
    service.check_model(body.model)

    def encode() -> list[int]:
        if body.messages is not None:
            return service.encode_chat(body.messages, body.tools)
        return service.encode_text(body.prompt or "", body.add_special_tokens)

    tokens = await service.off_loop(encode)
    length = engine.runner.max_model_len
    return JSONResponse({"count": len(tokens), "max_model_len": length, "tokens": tokens})


async def detokenize(service: Service, request: Request) -> Response:
    _, tokenizer = service.require_ready()
    body = await _body(request, DetokenizeRequest)
    service.check_model(body.model)
    ids = service.check_ids(body.tokens, "tokens")
    text = await service.off_loop(lambda: tokenizer.decode(ids, skip_special_tokens=False))
    return JSONResponse({"prompt": text})


async def health(service: Service, request: Request) -> Response:
    status = service.health
    return JSONResponse({"status": status}, 200 if status == READY else 503)


async def version(service: Service, request: Request) -> Response:
    return JSONResponse({"version": __version__})


async def metrics(service: Service, request: Request) -> Response:
    return Response(
        service.metrics.render(), media_type=None, headers={"content-type": CONTENT_TYPE}
    )


async def reset_prefix_cache(service: Service, request: Request) -> Response:
    """{"success": false} while requests run: nothing was dropped then."""
    engine, _ = service.require_ready()
    try:
        success = await asyncio.to_thread(engine.reset_prefix_cache)
    except EngineDead as error:
        raise ApiError(503, "not serving: engine_dead", code="engine_dead") from error
    return JSONResponse({"success": success})


@dataclass(frozen=True, slots=True)
class Access:
    """One row of the table: `who` is "public" or "key" (needs the bearer key if there is one)."""

    method: str
    path: str
    handler: Handler
    who: str


ROUTES = (
    Access("GET", "/health", health, PUBLIC),
    Access("GET", "/version", version, PUBLIC),
    Access("GET", "/v1/models", models, KEY),
    Access("GET", "/metrics", metrics, KEY),
    Access("POST", "/v1/chat/completions", chat_completions, KEY),
    Access("POST", "/v1/completions", completions, KEY),
    Access("POST", "/tokenize", tokenize, KEY),
    Access("POST", "/detokenize", detokenize, KEY),
    Access("POST", "/reset_prefix_cache", reset_prefix_cache, KEY),
)


def make_app(service: Service, bound_host: str = "127.0.0.1") -> SiteGuard:
    """The routes; without a key, web pages of other sites are kept out (see SiteGuard)."""
    app = make_routes(service)
    return SiteGuard(app, bound_host, lambda: service.api_key is None)


def make_routes(service: Service) -> Starlette:
    routes = [
        Route(row.path, _endpoint(service, row), methods=[row.method], name=row.handler.__name__)
        for row in ROUTES
    ]
    return Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS)


def _endpoint(service: Service, row: Access) -> Callable[[Request], Awaitable[Any]]:
    async def endpoint(request: Request) -> ASGIApp:
        if row.who == KEY:
            _check_key(service, request)
        return await row.handler(service, request)

    return endpoint


def _check_key(service: Service, request: Request) -> None:
    if service.api_key is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    same = hmac.compare_digest(given.strip().encode(), service.api_key.encode())
    if scheme.lower() != "bearer" or not same:
        raise ApiError(
            401,
            "missing or wrong API key: send Authorization: Bearer KEY",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


async def _body(request: Request, model: type[Body]) -> Body:
    """The validated JSON body, read with a cap. ApiError 400 or 413."""
    data = bytearray()
    try:
        async for part in request.stream():
            data += part
            if len(data) > MAX_BODY_BYTES:
                raise ApiError(413, f"the body is over {MAX_BODY_BYTES} bytes", code="too_large")
    except ClientDisconnect as error:
        raise ApiError(400, "the client left", code="client_left") from error
    try:
        return model.model_validate(orjson.loads(data))
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from error
    except ValidationError as error:
        raise invalid(error) from error
