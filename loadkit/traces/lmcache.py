"""LMCache agent traces: `input` and `output` as plain text, one request a line, time in microseconds.

The text was flattened from messages by the publisher, so no chat template is applied: the roles'
marks are missing from every prompt. Source of the format: LMCache/lmcache-agent-trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from loadkit.traces.lines import Place
from loadkit.traces.reading import Name, Reading
from loadkit.traces.texts import Reply, TextRequest

NAME = "lmcache"
NOTE = "prompts are plain text without their roles: tokens of the chat template are not counted"
Microseconds = Annotated[float, msgspec.Meta(ge=-1e19, le=1e19)]


class Row(msgspec.Struct):
    """One request and its reply."""

    input: str
    output: str
    timestamp: Microseconds | None = None
    session_id: Name | None = None


def matches(row: dict[str, Any]) -> bool:
    """Whether a log's first row looks like this format."""
    return isinstance(row.get("input"), str) and isinstance(row.get("output"), str)


def requests(reading: Reading) -> Iterator[tuple[Place, TextRequest]]:
    """The log's requests, one a row."""
    for place, row in reading.rows(Row):
        yield (
            place,
            TextRequest(
                prompt=row.input,
                session=row.session_id,
                arrival_s=None if row.timestamp is None else row.timestamp / 1e6,
                reply=Reply(content=row.output),
            ),
        )
