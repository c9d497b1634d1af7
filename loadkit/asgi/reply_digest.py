"""The digest of a reply, taken while it passes: a stream's text is hashed, not kept."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import orjson

from loadkit.asgi.canonical import canonical
from loadkit.core.digest_chain import DIGEST_SIZE, link

MAX_LINE_BYTES = 1 << 20
MAX_WHOLE_BYTES = 16 << 20
MAX_TOOL_CHARS = 1 << 20


class Unreadable(Exception):
    """An answer that is no chat completion, or too large to be looked at: it is not checked."""


class _Choice:
    """One streamed reply, as `link` would digest `{"content": ..., "role": "assistant", ...}`."""

    def __init__(self, parent: bytes) -> None:
        self._hash = blake2b(key=parent, digest_size=DIGEST_SIZE)
        self._has_text = self.is_finished = False
        self._calls: dict[int, dict[str, str]] = {}
        self._tool_chars = 0

    def add(self, delta: dict[str, Any]) -> None:
        text = delta.get("content")
        if isinstance(text, str) and text:
            # Keys are sorted, so the content comes first; a string's escapes concatenate.
            self._hash.update(b"" if self._has_text else b'{"content":"')
            self._hash.update(orjson.dumps(text)[1:-1])
            self._has_text = True
        for part in delta.get("tool_calls") or ():
            self._add_call(part)

    def _add_call(self, part: dict[str, Any]) -> None:
        call = self._calls.setdefault(part["index"], {"id": "", "name": "", "arguments": ""})
        function = part.get("function") or {}
        call["id"] = part.get("id") or call["id"]
        call["name"] += function.get("name") or ""
        more = function.get("arguments") or ""
        self._tool_chars += len(more)
        if self._tool_chars > MAX_TOOL_CHARS:
            raise Unreadable
        call["arguments"] += more

    def digest(self) -> bytes:
        rest: dict[str, Any] = {"role": "assistant"}
        if self._calls:
            rest["tool_calls"] = [_whole_call(c) for _, c in sorted(self._calls.items())]
        tail = orjson.dumps(canonical(rest), option=orjson.OPT_SORT_KEYS)
        self._hash.update(b'",' + tail[1:] if self._has_text else tail)
        return self._hash.digest()


class StreamedReply:
    """Feed it the bytes of an event stream; `digests` is there once every choice has finished.

    parent: digest that the reply follows. num_choices: the request's n.
    """

    def __init__(self, parent: bytes, num_choices: int) -> None:
        self._parent, self._num = parent, num_choices
        self._line = b""
        self._choices: dict[int, _Choice] = {}

    def feed(self, data: bytes) -> None:
        *lines, rest = (self._line + data).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise Unreadable
        self._line = rest
        for line in lines:
            if line.startswith(b"data:") and line[5:].strip() not in (b"[DONE]", b""):
                self._event(line[5:])

    def _event(self, data: bytes) -> None:
        for choice in _choices(data):
            index = choice.get("index", 0)
            if index not in self._choices and len(self._choices) >= self._num:
                raise Unreadable
            reply = self._choices.setdefault(index, _Choice(self._parent))
            try:
                reply.add(choice.get("delta") or {})
            except (AttributeError, KeyError, TypeError) as error:
                raise Unreadable from error
            reply.is_finished |= choice.get("finish_reason") is not None

    @property
    def is_finished(self) -> bool:
        done = sum(choice.is_finished for choice in self._choices.values())
        return done == self._num

    def digests(self) -> bytes:
        """One after another, DIGEST_SIZE bytes each. Call it once, when finished."""
        return b"".join(choice.digest() for choice in self._choices.values())


class WholeReply:
    """The same for an answer of one JSON object, of which a bounded copy is kept."""

    def __init__(self, parent: bytes) -> None:
        self._parent, self._body = parent, bytearray()
        self.is_finished = False  # only its end shows that it is whole

    def feed(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > MAX_WHOLE_BYTES:
            raise Unreadable

    def digests(self) -> bytes:
        replies = [choice.get("message") for choice in _choices(bytes(self._body))]
        return b"".join(link(self._parent, canonical(reply)) for reply in replies)


def _choices(data: bytes) -> list[dict[str, Any]]:
    try:
        body = orjson.loads(data)
        choices = body["choices"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise Unreadable from error
    if not isinstance(choices, list) or not all(isinstance(c, dict) for c in choices):
        raise Unreadable
    return choices


def _whole_call(call: dict[str, str]) -> dict[str, Any]:
    return {
        "id": call["id"] or None,
        "function": {"name": call["name"], "arguments": call["arguments"]},
    }
