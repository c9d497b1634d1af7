"""What was asked, in words, beside a text log's blocks: each distinct message is kept once.

The turns of a session repeat its history, so a log's distinct messages are a small part of it.
"""

from __future__ import annotations

import json
import secrets
from array import array
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

NO_PART = -1

# Texts beyond this many bytes are known by their digest only: equal or not, but not where.
MAX_TEXT_BYTES = 512 * 1024 * 1024
# A prompt given as one string grows from turn to turn; pieces let its turns share what they repeat.
_PIECE_CHARS = 2048
_SAFE_DEPTH = 200
_TEXT_KEYS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}


def for_template(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as chat templates expect it: text parts joined, absent fields left out.

    Content that is null or missing (beside tool calls) is empty text, which templates take, where
    null would be refused or written out as a word. Parts that are no text (images, documents) are
    left out: they are no text tokens, and readers of logs count and name them. Arguments of tool
    calls that are the JSON of an object become the object, and `reasoning` is also given as
    `reasoning_content`, as vLLM does before it renders: templates ask for these.
    """
    known = {name: value for name, value in message.items() if value is not None}
    content = known.setdefault("content", "")
    if isinstance(content, list):
        texts = map(part_text, content)
        known["content"] = "".join(text for text in texts if text is not None)
    if isinstance(known.get("tool_calls"), list):
        known["tool_calls"] = [_with_arguments(call) for call in known["tool_calls"]]
    if isinstance(known.get("reasoning"), str):
        known.setdefault("reasoning_content", known["reasoning"])
    return known


def part_text(part: Any) -> str | None:
    """The text of a content part under any name that OpenAI's API gives it; None if it is no text."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        return None
    text = part.get(_TEXT_KEYS.get(str(part.get("type")), ""))
    return text if isinstance(text, str) else None


def _with_arguments(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except (ValueError, RecursionError):
        return call
    if not isinstance(arguments, dict):
        return call
    return {**call, "function": {**function, "arguments": arguments}}


@dataclass(frozen=True, slots=True)
class Chat:
    """One request's text. Either messages or pieces of a prompt; ids of parts, equal id = equal text.

    tools, reply: NO_PART where the request has none or the log does not say.
    """

    parts: tuple[int, ...]
    is_prompt: bool
    tools: int
    reply: int


class Chats:
    """The chats of a log, row by row in the order added. Build it, then `take` the trace's order."""

    def __init__(self, max_text_bytes: int = MAX_TEXT_BYTES):
        self._ids: dict[bytes, int] = {}
        self._texts: list[bytes | None] = []
        self._sizes = array("q")
        self._room = max_text_bytes
        self._ptr, self._refs = array("q", [0]), array("q")
        self._tools, self._reply = array("q"), array("q")
        self._is_prompt = array("b")
        self._order: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self._tools) if self._order is None else len(self._order)

    def add_messages(
        self, messages: Sequence[Any], tools: Sequence[Any] | None, reply: Any = None
    ) -> None:
        """Add a chat request; `reply` is the assistant's text or message, None if not logged."""
        self._add([self._id(message) for message in messages], False, tools, reply)

    def add_prompt(self, prompt: str, reply: Any = None) -> None:
        """Add a request whose prompt is one string."""
        starts = range(0, len(prompt), _PIECE_CHARS)
        pieces = [self._id(prompt[start : start + _PIECE_CHARS]) for start in starts]
        self._add(pieces, True, None, reply)

    def add_nothing(self) -> None:
        """Add a request without text, so that rows stay aligned."""
        self._add([], True, None, None)

    def take(self, order: npt.NDArray[np.int64]) -> Chats:
        """The same chats in another order: row k is what row order[k] was."""
        taken = copy(self)
        taken._order = order if self._order is None else self._order[order]
        return taken

    def __getitem__(self, row: int) -> Chat:
        at = row if self._order is None else int(self._order[row])
        return Chat(
            parts=tuple(self._refs[self._ptr[at] : self._ptr[at + 1]]),
            is_prompt=bool(self._is_prompt[at]),
            tools=self._tools[at],
            reply=self._reply[at],
        )

    def part(self, part_id: int) -> Any | None:
        """A part as it was logged (keys in their order); None if its text was not kept."""
        text = None if part_id == NO_PART else self._texts[part_id]
        return None if text is None else _from_json(text)

    def size(self, part_id: int) -> int:
        """Bytes of a part as JSON; 0 for NO_PART."""
        return 0 if part_id == NO_PART else self._sizes[part_id]

    def _add(
        self, parts: Sequence[int], is_prompt: bool, tools: Sequence[Any] | None, reply: Any
    ) -> None:
        self._refs.extend(parts)
        self._ptr.append(len(self._refs))
        self._is_prompt.append(is_prompt)
        self._tools.append(self._id(list(tools)) if tools else NO_PART)
        self._reply.append(NO_PART if reply is None else self._id(reply))

    def _id(self, value: Any) -> int:
        told_by, text = _encoded(value)
        digest = blake2b(told_by, digest_size=16).digest()
        known = self._ids.get(digest)
        if known is not None:
            return known
        self._ids[digest] = len(self._texts)
        self._sizes.append(len(told_by))
        self._texts.append(text if text is not None and len(text) <= self._room else None)
        self._room -= min(self._room, len(text or b""))
        return len(self._texts) - 1


def _encoded(value: Any) -> tuple[bytes, bytes | None]:
    """What a value is told from others by, and its JSON with keys in their order, to be kept.

    The slow way round for what orjson refuses: integers above 64 bits, and nesting. No text is kept
    of what may be nested deeply, so that nobody runs out of stack over it; what is nested too deep
    even to be written is equal to nothing.
    """
    try:
        text = orjson.dumps(value)
    except TypeError:
        try:
            text = json.dumps(value).encode()
        except RecursionError:
            return secrets.token_bytes(16), None
        if text.count(b"[") + text.count(b"{") > _SAFE_DEPTH:
            return text, None
    return text, text


def _from_json(text: bytes) -> Any:
    """The slow way round for integers that no double holds."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)
