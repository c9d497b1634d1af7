"""The JSON of an answer, decoded into the few fields that are looked at.

Typed decoding skips all other fields, and all events of a stream are decoded in one call: that is
what makes a full decode cheap enough for a load client.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from loadkit.client.foreign import UNREADABLE, Malformed


class Part(msgspec.Struct, gc=False):
    """A delta of a stream, or the message of a whole answer. content: text, or a list of parts."""

    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: Any = None


class Choice(msgspec.Struct, gc=False):
    delta: Part | None = None
    message: Part | None = None
    text: str | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: Any = None
    usage: Any = None


class Chunk(msgspec.Struct, gc=False):
    """One event's data, or the whole body of an answer that is not streamed.

    choices: OpenAI. type, message, delta, stop_reason: Anthropic. content: llama.cpp's /completion
    (text) or Anthropic (blocks). index, content_block: Anthropic's blocks. stop, timings: llama.cpp.
    prompt_token_ids: vLLM's chats; its completions have them in the choice. x_groq: Groq's usage.
    """

    choices: list[Choice] | None = None
    usage: Any = None
    timings: Any = None
    error: Any = None
    type: Any = None
    message: Any = None
    delta: Any = None
    content: Any = None
    stop: Any = None
    stop_reason: Any = None
    index: Any = None
    content_block: Any = None
    prompt_token_ids: Any = None
    x_groq: Any = None

    @property
    def is_plain(self) -> bool:
        """Nothing but OpenAI choices: nearly every event of nearly every stream."""
        return (
            self.choices is not None
            and self.usage is None
            and self.timings is None
            and self.error is None
            and self.prompt_token_ids is None
            and self.x_groq is None
        )


_one = msgspec.json.Decoder(Chunk)
_many = msgspec.json.Decoder(list[Chunk])
_BETWEEN, _DONE = b"\n\ndata: ", b"[DONE]\n\n"


def decode_chunk(data: bytes, index: int = 0) -> Chunk:
    """Malformed when it is not JSON or has another shape."""
    try:
        return _one.decode(data)
    except UNREADABLE as error:
        raise Malformed(f"not a JSON answer: {error}", index) from error


def decode_chunks(datas: Sequence[bytes]) -> list[Chunk]:
    """The chunk of each event's data. Malformed names the first bad one."""
    chunks = _decode_list(b"[" + b",".join(datas) + b"]")
    if len(chunks) != len(datas):  # one is bad (`1},{2` would make two): find out which
        chunks = [decode_chunk(data, index) for index, data in enumerate(datas)]
    return chunks


def plain_datas(body: bytes) -> list[bytes] | None:
    """Data of each event of a stream in the shape of nearly all: one `data: ` line an event, a blank
    line after each, `[DONE]` as the last (left out). None for any other body, however right.

    JSON holds no raw line break, so a blank line always ends an event, and the count of lines shows
    that there are none but these.
    """
    datas = body[6:].split(_BETWEEN)
    if (
        datas.pop() != _DONE
        or body[:6] != b"data: "
        or body.count(b"\n") != 2 * (len(datas) + 1)
        or b"\r" in body
    ):
        return None
    return datas


def _decode_list(datas: bytes) -> list[Chunk]:
    """[] when it is no list of chunks."""
    try:
        return _many.decode(datas)
    except UNREADABLE:
        return []
