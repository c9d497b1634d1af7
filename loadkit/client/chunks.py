"""The JSON of an OpenAI-compatible answer, decoded into the few fields that are looked at.

Typed decoding skips all other fields, and all events of a stream are decoded in one call: that is
what makes a full decode cheap enough for a load client.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec


class Malformed(Exception):
    """Data that is no answer of an OpenAI-compatible server. index: of which event, 0 without."""

    def __init__(self, what: str, index: int = 0):
        self.index = index
        super().__init__(what)


class Part(msgspec.Struct, gc=False):
    """A delta of a stream, or the message of a whole answer."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: Any = None


class Choice(msgspec.Struct, gc=False):
    delta: Part | None = None
    message: Part | None = None
    text: str | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None


class Chunk(msgspec.Struct, gc=False):
    """One event's data, or the whole body of an answer that is not streamed."""

    choices: list[Choice] | None = None
    usage: Any = None
    timings: Any = None
    error: Any = None


_one = msgspec.json.Decoder(Chunk)
_many = msgspec.json.Decoder(list[Chunk])


def decode_chunk(data: bytes, index: int = 0) -> Chunk:
    """Malformed when it is not JSON or has another shape."""
    try:
        return _one.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"not a JSON answer: {error}", index) from error


def decode_chunks(datas: Sequence[bytes]) -> list[Chunk]:
    """The chunk of each event's data. Malformed names the first bad one."""
    try:
        chunks = _many.decode(b"[" + b",".join(datas) + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError):
        chunks = []
    if len(chunks) != len(datas):  # one is bad (`1},{2` would make two): find out which
        chunks = [decode_chunk(data, index) for index, data in enumerate(datas)]
    return chunks
