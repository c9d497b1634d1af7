"""OpenAI batch input files: custom_id, method, url and the body of one request a line.

No timestamps, no sessions, no replies. Bodies for other endpoints than chat completions,
completions and responses have no prompt whose prefix could be cached, and are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, TypeVar

import msgspec

from loadkit.traces import responses
from loadkit.traces.lines import Place
from loadkit.traces.openai import Body, request_of
from loadkit.traces.reading import Name, Reading
from loadkit.traces.texts import TextRequest

NAME = "openai-batch"
T = TypeVar("T")
_URLS = ("/chat/completions", "/completions", "/responses")


class Row(msgspec.Struct):
    """custom_id is looked at only to count repeated ones."""

    NO_TEXT: ClassVar[frozenset[str]] = frozenset({"method", "response", "error"})

    body: dict[str, Any]
    custom_id: Name
    url: str = "/v1/chat/completions"


def matches(row: dict[str, Any]) -> bool:
    """Whether a log's first row looks like this format."""
    return {"custom_id", "body"} <= row.keys()


def requests(reading: Reading) -> Iterator[tuple[Place, TextRequest]]:
    """The file's requests, one a row."""
    conversations = responses.Conversations()
    for place, row in reading.rows(Row):
        with reading.row():
            if not row.url.endswith(_URLS):
                raise place.error(f"the url {row.url[:80]!r} is no chat, completion or response")
            if row.url.endswith("/responses"):
                asked = _body(place, row.body, responses.Body, reading)
                request = conversations.request_of(place, asked, reading)
            else:
                request = request_of(place, _body(place, row.body, Body, reading))
            request.request_id = row.custom_id
            yield place, request


def _body(place: Place, body: dict[str, Any], kind: type[T], reading: Reading) -> T:
    """The body of an endpoint, its fields checked."""
    try:
        converted = msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise place.error(f"the body does not fit the format: {error}") from error
    reading.gaps.fields_of(place, kind, body)
    return converted
