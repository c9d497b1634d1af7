"""What only the operator may see or do, as it is about all tenants."""

from __future__ import annotations

import asyncio

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from reference_server.api_errors import ApiError
from reference_server.cache_statistics import cache_statistics
from reference_server.engine import Engine, EngineDead
from reference_server.event_stream import EventStream
from reference_server.metrics import CONTENT_TYPE
from reference_server.service import READY, Service

MAX_STREAMS = 8


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


async def cache_stats(service: Service, request: Request) -> Response:
    engine, _ = service.require_ready()
    return JSONResponse(cache_statistics(engine, service.metrics))


async def kv_events(service: Service, request: Request) -> ASGIApp:
    """Server-sent events from `since` (or Last-Event-ID) on; 0: all that are remembered."""
    engine, _ = service.require_ready()
    given = request.headers.get("last-event-id") or request.query_params.get("since", "0")
    if not (given.isascii() and given.isdigit() and len(given) < 19):
        raise ApiError(400, "since is not a number", code="invalid_value", param="since")
    if service.num_event_streams >= MAX_STREAMS:
        message = f"{MAX_STREAMS} streams of events are open"
        raise ApiError(429, message, code="too_many_streams", headers={"Retry-After": "5"})
    return EventStream(engine.tree.events, int(given), service, lambda: service.health == READY)


async def start_request_log(service: Service, request: Request) -> Response:
    """From now on the rows of ended requests are kept, the last 10,000 of them."""
    engine, _ = service.require_ready()
    engine.log.start()
    return JSONResponse({"success": True})


async def take_request_log(service: Service, request: Request) -> Response:
    """The rows since the last time, a JSON object a line; the server forgets them. 409 if off."""
    engine, _ = service.require_ready()
    if not engine.log.is_on:
        message = "the log is off: POST /request_log/start, then send requests"
        raise ApiError(409, message, code="request_log_off")
    content = await asyncio.to_thread(_rows, engine)
    headers = {"x-lost-rows": str(engine.log.num_lost)}
    return Response(content, media_type="application/x-ndjson", headers=headers)


def _rows(engine: Engine) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in engine.log.take())
