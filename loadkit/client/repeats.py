"""Events that differ in nothing but their text, read without decoding each.

Nearly all events of nearly all streams are one template with other words in it. The template is
taken from an event in the middle: its bytes before and after the text. The texts of all events that
begin and end so are decoded as one JSON list, which also shows that nothing but a text was between.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from loadkit.client.chunks import Chunk, decode_chunk, decode_chunks
from loadkit.client.foreign import UNREADABLE, Malformed

MIN_EVENTS = 8
_CONTENT = re.compile(rb'"content": ?"((?:[^"\\]|\\.)*)"')
_texts = msgspec.json.Decoder(list[str])


def read_events(datas: Sequence[bytes]) -> list[Chunk | str]:
    """Each event decoded, in order; the bare text where an event says nothing else. Malformed names
    the first that cannot be."""
    template = _template(datas[len(datas) // 2]) if len(datas) >= MIN_EVENTS else None
    if template is None:
        return [*decode_chunks(datas)]
    before, after = template
    size, end = len(before), -len(after)
    is_text = [data.startswith(before) and data.endswith(after) for data in datas]
    raw = [data[size:end] for data, like in zip(datas, is_text, strict=True) if like]
    try:
        texts = _texts.decode(b'["' + b'","'.join(raw) + b'"]')
    except UNREADABLE:
        texts = []
    if len(texts) != len(raw):
        return [*decode_chunks(datas)]
    events: list[Chunk | str] = [*texts]
    if len(texts) < len(datas):
        for number, like in enumerate(is_text):
            if not like:
                events.insert(number, decode_chunk(datas[number], number))
    return events


def _template(data: bytes) -> tuple[bytes, bytes] | None:
    """(bytes before the text, bytes after it) of an event that says one text and nothing else."""
    match = _CONTENT.search(data)
    if match is None or data.count(b'"content"') != 1:
        return None
    try:
        chunk = decode_chunk(data)
        said = _texts.decode(b'["' + match[1] + b'"]')
    except (Malformed, *UNREADABLE):
        return None
    if not _says_only(chunk, said):
        return None
    return data[: match.start(1)], data[match.end(1) :]


def _says_only(chunk: Chunk, said: list[str]) -> bool:
    if not chunk.is_plain or chunk.choices is None or len(chunk.choices) != 1:
        return False
    choice = chunk.choices[0]
    part = choice.delta
    return (
        part is not None
        and [part.content] == said
        and choice.finish_reason is None
        and choice.token_ids is None
        and choice.prompt_token_ids is None
        and choice.usage is None
        and not (part.reasoning_content or part.reasoning or part.tool_calls)
    )
