"""A request's JSON body: read with a cap, checked against its schema."""

from __future__ import annotations

from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from reference_server.api_errors import ApiError, invalid

MAX_BODY_BYTES = 16 << 20
Body = TypeVar("Body", bound=BaseModel)


async def read_body(request: Request, model: type[Body]) -> Body:
    """ApiError 400 or 413; a body over the cap is not read on."""
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
