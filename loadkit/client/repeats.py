"""The run of events in a stream that differ in nothing but their text, cut out in one go.

Nearly all events of nearly all streams are one template with other words in it. The template is
taken from an event in the middle, its bytes before and after the text; splitting the body by
`after + blank line + before` leaves the texts. All of them are then decoded as one JSON list, which
also shows that nothing else was between. Any doubt, and the caller decodes event by event.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from loadkit.client.chunks import UNREADABLE, Malformed, decode_chunk

MIN_EVENTS = 8
_BETWEEN = b"\n\ndata: "
_CONTENT = re.compile(rb'"content": ?"((?:[^"\\]|\\.)*)"')
_texts = msgspec.json.Decoder(list[str])


class Repeats(NamedTuple):
    """head, tail: whole events before and after the run. texts: of each event of it, in order."""

    head: bytes
    texts: list[str]
    tail: bytes


def split_repeats(body: bytes) -> Repeats | None:
    """None when there is no such run of some length, or anything about it is in doubt."""
    template = _template(body)
    if template is None:
        return None
    before, after = template
    parts = body.split(after + _BETWEEN + before)
    if len(parts) < MIN_EVENTS:
        return None
    head, texts_in_head = _split_head(parts.pop(0), before, after)
    texts_in_tail, tail = _split_tail(parts.pop(), before, after)
    parts = [*texts_in_head, *parts, *texts_in_tail]
    try:
        texts = _texts.decode(b'["' + b'","'.join(parts) + b'"]')
    except UNREADABLE:
        return None
    return Repeats(head, texts, tail) if len(texts) == len(parts) else None


def _split_head(part: bytes, before: bytes, after: bytes) -> tuple[bytes, list[bytes]]:
    """(whole events, the text of the run's first event). The last event here ends like the run's;
    it may begin otherwise, with a role, and is then none of it."""
    start = part.rfind(b"data: ")  # a text that says so too is caught by the decoding
    if part.startswith(before, start + 6):
        return part[:start], [part[start + 6 + len(before) :]]
    return part + after + b"\n\n", []


def _split_tail(part: bytes, before: bytes, after: bytes) -> tuple[list[bytes], bytes]:
    """The same at the end, where an event may begin like the run's and say why it is the last."""
    end = part.find(b"\n\n")
    if part.endswith(after, 0, max(end, 0)):
        return [part[: end - len(after)]], part[end + 2 :]
    return [], b"data: " + before + part


def _template(body: bytes) -> tuple[bytes, bytes] | None:
    """(bytes before the text, bytes after it) of an event in the middle, if it is a plain one."""
    start = body.find(_BETWEEN, len(body) // 2) + len(_BETWEEN)
    end = body.find(b"\n\n", start)
    data = body[start:end]
    match = _CONTENT.search(data)
    if start < len(_BETWEEN) or end < 0 or match is None or not _is_plain(data, match[1]):
        return None
    return data[: match.start(1)], data[match.end(1) :]


def _is_plain(data: bytes, text: bytes) -> bool:
    """Is this text the one thing that is said by an event?"""
    try:
        chunk = decode_chunk(data)
        (said,) = _texts.decode(b'["' + text + b'"]')
    except (Malformed, ValueError, *UNREADABLE):
        return False
    if not chunk.is_plain or chunk.choices is None or len(chunk.choices) != 1:
        return False
    choice = chunk.choices[0]
    part = choice.delta
    return (
        data.count(b'"content"') == 1
        and b"\r" not in data
        and part is not None
        and part.content == said
        and choice.finish_reason is None
        and choice.token_ids is None
        and not (part.reasoning_content or part.reasoning or part.tool_calls)
    )
