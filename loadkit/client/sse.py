"""Server-sent events out of a whole body, with the place where each one's data ends.

The hard cases: lines end in LF, CRLF or CR; one event may have several `data:` lines; comments
(`:` keep-alives) and `event:`, `id:`, `retry:` lines carry no data; the last event may lack its
blank line. Multi-byte characters are whole here because the body is joined before it is cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_LINE = re.compile(rb"([^\r\n]*)(?:\r\n|\n|\r|$)")

Event = tuple[int, bytes]


def data_events(body: bytes) -> Iterator[Event]:
    """(offset just after the last byte of the event's data, data) of each event that has data."""
    if b"\r" in body:
        yield from _by_line(body, 0)
        return
    start = 0
    while start < len(body):
        end = body.find(b"\n\n", start)
        if end < 0:
            end = len(body)
        piece = body[start:end]
        if (
            piece[:6] == b"data: " and b"\n" not in piece
        ):  # nearly every event of nearly every server
            yield end, piece[6:]
        else:
            yield from _by_line(piece, start)
        start = end + 2


def _by_line(body: bytes, offset: int) -> Iterator[Event]:
    """The same by the letter of the standard; `offset` is where `body` starts in the whole."""
    lines: list[bytes] = []
    end = 0
    for match in _LINE.finditer(body):
        line = match[1]
        if line.startswith(b"data:"):
            lines.append(line[6:] if line[5:6] == b" " else line[5:])
            end = offset + match.end(1)
        elif not line and lines:
            yield end, b"\n".join(lines)
            lines = []
    if lines:
        yield end, b"\n".join(lines)


def looks_like_events(body: bytes, content_type: bytes) -> bool:
    """Is this an event stream? By its type, else by how it starts (some proxies drop the type)."""
    if b"event-stream" in content_type:
        return True
    return body.lstrip()[:6].startswith((b"data:", b"event:", b":"))
