"""OpenAI batch input files: custom_id, method, url and the body of one request a line.

No timestamps, no sessions, no replies. Bodies for other endpoints than chat completions,
completions and responses have no prompt whose prefix could be cached, and are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from loadkit.traces.lines import Place
from loadkit.traces.openai import Body, request_of
from loadkit.traces.reading import Name, Reading
from loadkit.traces.texts import TextRequest

NAME = "openai-batch"
_URLS = ("/chat/completions", "/completions", "/responses")


class Row(msgspec.Struct):
    """custom_id is looked at only to count repeated ones."""

    body: Body
    custom_id: Name
    url: str = "/v1/chat/completions"


def matches(row: dict[str, Any]) -> bool:
    """Whether a log's first row looks like this format."""
    return {"custom_id", "body"} <= row.keys()


def requests(reading: Reading) -> Iterator[tuple[Place, TextRequest]]:
    """The file's requests, one a row."""
    for place, row in reading.rows(Row):
        with reading.row():
            if not row.url.endswith(_URLS):
                raise place.error(f"the url {row.url[:80]!r} is no chat, completion or response")
            request = request_of(place, row.body)
            request.request_id = row.custom_id
            yield place, request
