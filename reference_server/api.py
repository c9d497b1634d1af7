"""The HTTP routes: OpenAI's completions, vLLM's extras, all behind one table of who may call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from loadkit import __version__
from loadkit.asgi import AppendOnly
from loadkit.asgi.own_site import SiteGuard
from reference_server import operator_routes
from reference_server.api_errors import EXCEPTION_HANDLERS, ApiError
from reference_server.key_check import KeyCheck
from reference_server.request_body import read_body
from reference_server.responses import GenerationResponse, Shape, StreamedGeneration
from reference_server.schema import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from reference_server.service import READY, Service

PUBLIC, KEY, OPERATOR = "public", "key", "operator"
Handler = Callable[[Service, Request], Awaitable[ASGIApp]]


async def chat_completions(service: Service, request: Request) -> ASGIApp:
    return await _generate(service, request, await read_body(request, ChatRequest))


async def completions(service: Service, request: Request) -> ASGIApp:
    return await _generate(service, request, await read_body(request, CompletionRequest))


async def _generate(
    service: Service, http: Request, body: ChatRequest | CompletionRequest
) -> ASGIApp:
    session = http.headers.get("x-session-id")
    generation = await service.submit(body, session, http.state.caller)
    engine, _ = service.require_ready()
    shape = Shape(
        chat=isinstance(body, ChatRequest),
        model=service.model_name,
        include_usage=body.include_usage,
        token_ids=body.return_token_ids,
        texts=None if body.num_logprobs is None else service.texts,
    )
    kind = StreamedGeneration if body.stream else GenerationResponse
    return kind(engine, generation, shape)


async def models(service: Service, request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [_card(service)]})


async def model(service: Service, request: Request) -> Response:
    card = _card(service)
    service.check_model(request.path_params["model"])
    return JSONResponse(card)


def _card(service: Service) -> dict[str, Any]:
    engine, _ = service.require_ready()
    return {
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


async def tokenize(service: Service, request: Request) -> Response:
    engine, _ = service.require_ready()
    body = await read_body(request, TokenizeRequest)
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
    body = await read_body(request, DetokenizeRequest)
    service.check_model(body.model)
    ids = service.check_ids(body.tokens, "tokens")
    text = await service.off_loop(lambda: tokenizer.decode(ids, skip_special_tokens=False))
    return JSONResponse({"prompt": text})


async def health(service: Service, request: Request) -> Response:
    status = service.health
    return JSONResponse({"status": status}, 200 if status == READY else 503)


async def version(service: Service, request: Request) -> Response:
    return JSONResponse({"version": __version__})


@dataclass(frozen=True, slots=True)
class Access:
    """One row of the table. Where keys are set, `who` may call: anybody (PUBLIC), whoever has one
    (KEY), or the operator alone (OPERATOR, see `Keys`)."""

    method: str
    path: str
    handler: Handler
    who: str


ROUTES = (
    Access("GET", "/health", health, PUBLIC),
    Access("GET", "/version", version, PUBLIC),
    Access("GET", "/v1/models", models, KEY),
    Access("GET", "/v1/models/{model:path}", model, KEY),  # names may have slashes
    Access("POST", "/v1/chat/completions", chat_completions, KEY),
    Access("POST", "/v1/completions", completions, KEY),
    Access("POST", "/tokenize", tokenize, KEY),
    Access("POST", "/detokenize", detokenize, KEY),
    Access("GET", "/metrics", operator_routes.metrics, OPERATOR),
    Access("GET", "/cache_stats", operator_routes.cache_stats, OPERATOR),
    Access("GET", "/kv_events", operator_routes.kv_events, OPERATOR),
    Access("POST", "/reset_prefix_cache", operator_routes.reset_prefix_cache, OPERATOR),
    Access("POST", "/request_log/start", operator_routes.start_request_log, OPERATOR),
    Access("POST", "/request_log/take", operator_routes.take_request_log, OPERATOR),
)


def make_app(
    service: Service, bound_host: str = "127.0.0.1", append_only: str = "off"
) -> SiteGuard:
    """The routes behind the key check; without a key, web pages of other sites are kept out (see
    SiteGuard).

    append_only: mode of the guard in front of chat completions; its counts are in /metrics. It
    sees only what has a key.
    """
    guard = AppendOnly(make_routes(service), mode=append_only, registry=service.metrics.registry)
    app = KeyCheck(guard, lambda: service.keys, service.metrics.refused)
    return SiteGuard(app, bound_host, lambda: not service.keys.are_set)


def make_routes(service: Service) -> Starlette:
    routes = [
        Route(row.path, _endpoint(service, row), methods=[row.method], name=row.handler.__name__)
        for row in ROUTES
    ]
    return Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS)


def _endpoint(service: Service, row: Access) -> Callable[[Request], Awaitable[Any]]:
    async def endpoint(request: Request) -> ASGIApp:
        try:
            if row.who == OPERATOR and not request.state.caller.is_operator:
                raise ApiError(403, "this route needs the admin key", code="admin_key_needed")
            return await row.handler(service, request)
        except ApiError as error:
            service.metrics.refused(error.status)
            raise

    return endpoint
