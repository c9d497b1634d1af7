"""The events of one answer: text, tool calls, token times, token ids, usage. OpenAI's shape,
Anthropic's and llama.cpp's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat
from typing import Any

import msgspec

from loadkit.client.chunks import (
    Choice,
    Chunk,
    decode_chunk,
    decode_chunks,
    plain_datas,
)
from loadkit.client.foreign import Malformed
from loadkit.client.receipt import Receipt
from loadkit.client.repeats import read_events
from loadkit.client.sse import data_events
from loadkit.client.usage import Usage, read_usage

MAX_TOOL_CALLS = 256


class ToolCall(msgspec.Struct):
    """A call that a model asks for. id: made up where the server names none. arguments: JSON as the
    model wrote it, so perhaps none."""

    id: str = ""
    name: str = ""
    arguments: str = ""

    def as_sent(self) -> dict[str, Any]:
        """The call in the assistant's message of a chat's history."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


class Decoded:
    """What an answer said. token_times: arrival of each event with a token; empty when it was not
    streamed. event_tokens: how many token ids came by each of them since the one before; empty where
    the server sends none. prompt_token_ids: as the server sent them, not checked. is_done: it said that it was
    complete. malformed, error: why reading stopped."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.token_times: list[float] = []
        self.event_tokens: list[int] = []
        self._num_timed = 0
        self.token_ids: list[int] | None = None
        self.prompt_token_ids: Any = None
        self.finish_reason: str | None = None
        self.is_done = False
        self.malformed: str | None = None
        self.error: Any = None
        self._usage: dict[str, Any] = {}
        self._timings: Any = None
        self._x_groq: Any = None
        self._calls: dict[int, ToolCall] = {}
        self._arguments: dict[
            int, list[str]
        ] = {}  # in pieces: adding text to text copies all of it

    @property
    def usage(self) -> Usage:
        return read_usage({"usage": self._usage, "timings": self._timings, "x_groq": self._x_groq})

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls in the order of their index, their pieces joined."""
        for index, pieces in self._arguments.items():
            self._calls[index].arguments = "".join(pieces)
        calls = [call for _, call in sorted(self._calls.items())]
        for number, call in enumerate(calls):
            call.id = call.id or f"call_{number}"
        return calls

    def add(self, chunk: Chunk, at: float | None) -> None:
        """One event (or whole answer) that arrived at `at`."""
        if chunk.error:
            self.error = self.error or chunk.error
            return
        if chunk.usage:
            self._add_usage(chunk.usage, merge=chunk.type is not None)
        if chunk.timings:
            self._timings = chunk.timings
        if chunk.x_groq:
            self._x_groq = chunk.x_groq
        if chunk.prompt_token_ids:
            self.prompt_token_ids = self.prompt_token_ids or chunk.prompt_token_ids
        if chunk.choices:
            is_token = self.add_choice(chunk.choices[0])
        elif chunk.choices is None and chunk.type is not None:
            is_token = self._add_anthropic(chunk)
        elif chunk.choices is None and isinstance(chunk.content, str):
            is_token = self._add_llama_cpp(chunk)
        else:
            return
        if is_token and at is not None:
            self.token_times.append(at)
            if self.token_ids is not None:
                self.event_tokens.append(len(self.token_ids) - self._num_timed)
                self._num_timed = len(self.token_ids)

    def add_choice(self, choice: Choice) -> bool:
        """True when there was a token: text, reasoning or a tool call."""
        if choice.finish_reason is not None:
            self.finish_reason = choice.finish_reason
        if choice.token_ids:
            if self.token_ids is None:
                self.token_ids = []
            self.token_ids += choice.token_ids
        if choice.prompt_token_ids:
            self.prompt_token_ids = self.prompt_token_ids or choice.prompt_token_ids
        if choice.usage:  # Moonshot's streams
            self._add_usage(choice.usage, merge=True)
        part = choice.delta or choice.message
        if part is None:
            return self._add_text(choice.text)
        has_text = self._add_content(part.content)
        has_thought = self._add_thought(part.reasoning_content or part.reasoning)
        if part.tool_calls:
            self._add_calls(part.tool_calls)
        return has_text or has_thought or bool(part.tool_calls)

    def _add_content(self, content: str | list[Any] | None) -> bool:
        """Text, or a list of parts of text and thought (Mistral's)."""
        if not isinstance(content, list):
            return self._add_text(content)
        return sum(self._add_block(part, 0) for part in content) > 0

    def _add_calls(self, pieces: Any) -> None:
        """Pieces of calls: the first of an index has its id and name, all have more arguments. A
        whole answer's calls have no index but their place."""
        if not isinstance(pieces, list):
            return
        for place, piece in enumerate(pieces):
            if isinstance(piece, Mapping):
                index = piece.get("index")
                function = piece.get("function")
                said = function if isinstance(function, Mapping) else {}
                self._add_call(
                    place if index is None else index,
                    piece.get("id"),
                    said.get("name"),
                    said.get("arguments"),
                )

    def _add_call(self, index: Any, call_id: Any, name: Any, arguments: Any) -> None:
        """Arguments come as text, or (Ollama, Anthropic's whole answers) as an object."""
        if not isinstance(index, int) or not 0 <= index < MAX_TOOL_CALLS:
            return
        call = self._calls.setdefault(index, ToolCall())
        call.id = call.id or (call_id if isinstance(call_id, str) else "")
        call.name = call.name or (name if isinstance(name, str) else "")
        if arguments:
            text = (
                arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
            )
            self._arguments.setdefault(index, []).append(text)

    def _add_anthropic(self, chunk: Chunk) -> bool:
        """message_start and message_delta carry usage and the reason to stop; a delta of
        input_json is the text of a tool call."""
        if chunk.type == "message_stop":
            self.is_done = True
        if chunk.type == "message_start" and isinstance(chunk.message, Mapping):
            self._add_usage(chunk.message.get("usage"), merge=True)
        if chunk.type == "message":  # a whole answer
            self._stop(chunk.stop_reason)
            blocks = chunk.content if isinstance(chunk.content, list) else []
            return sum(self._add_block(block, at) for at, block in enumerate(blocks)) > 0
        if isinstance(chunk.content_block, Mapping):
            self._add_block(chunk.content_block, chunk.index)  # its first words are no token yet
            return False
        if not isinstance(chunk.delta, Mapping):
            return False
        self._stop(chunk.delta.get("stop_reason"))
        return self._add_block(chunk.delta, chunk.index)

    def _add_block(self, block: Any, index: Any) -> bool:
        """A block of content, or a piece of the block at `index`; True when there was a token."""
        if not isinstance(block, Mapping):
            return False
        if block.get("type") == "tool_use":
            self._add_call(index, block.get("id"), block.get("name"), block.get("input"))
        elif block.get("partial_json"):
            self._add_call(index, None, None, block["partial_json"])
        has_text = self._add_text(block.get("text"))
        thought = block.get("thinking")
        parts = thought if isinstance(thought, list) else [{"text": thought}]
        has_thought = sum(self._add_thought(_text_of(part)) for part in parts) > 0
        return has_text or has_thought or bool(block.get("partial_json") or block.get("input"))

    def _add_llama_cpp(self, chunk: Chunk) -> bool:
        if chunk.stop is True:
            self.finish_reason = self.finish_reason or "stop"
        return self._add_text(chunk.content)

    def _stop(self, reason: Any) -> None:
        if isinstance(reason, str):
            self.finish_reason = reason

    def _add_text(self, text: Any) -> bool:
        if not text or not isinstance(text, str):
            return False
        self.texts.append(text)
        return True

    def _add_thought(self, text: Any) -> bool:
        if not text or not isinstance(text, str):
            return False
        self.thoughts.append(text)
        return True

    def _add_usage(self, usage: Any, *, merge: bool) -> None:
        """Of two reports the later counts. Anthropic's two are halves of one."""
        if isinstance(usage, Mapping):
            if not merge:
                self._usage = {}
            self._usage.update((k, v) for k, v in usage.items() if v is not None)


def _text_of(part: Any) -> Any:
    return part.get("text") if isinstance(part, Mapping) else None


def decode_body(receipt: Receipt, body: bytes, *, streamed: bool, is_whole: bool) -> Decoded:
    """Read as far as it can be read. is_whole: the answer came to its end, so that a torn last
    event is a fault of the server and not of the cut."""
    decoded = Decoded()
    try:
        if not streamed:
            decoded.add(decode_chunk(body), None)
        elif (datas := plain_datas(body)) is not None:
            _add_plain(decoded, receipt, datas)
        else:
            _add_any(decoded, receipt, body, is_whole=is_whole)
    except Malformed as error:
        decoded.malformed = str(error)
    return decoded


def _add_plain(decoded: Decoded, receipt: Receipt, datas: Sequence[bytes]) -> None:
    """A whole stream, one line an event, that ended with `[DONE]`."""
    decoded.is_done = True
    malformed: Malformed | None = None
    try:
        events = read_events(datas)
    except Malformed as error:
        malformed, events = error, [*decode_chunks(datas[: error.index])]
    texts, token_times = decoded.texts, decoded.token_times
    for event, at in zip(events, _times_of_lines(receipt, len(datas) + 1), strict=False):
        if not isinstance(event, str):
            decoded.add(event, at)
        elif event:
            texts.append(event)
            token_times.append(at)
    if malformed is not None:
        raise malformed


def _add_any(decoded: Decoded, receipt: Receipt, body: bytes, *, is_whole: bool) -> None:
    ends, datas = _data_before_done(decoded, body)
    malformed: Malformed | None = None
    try:
        good = decode_chunks(datas)
    except Malformed as error:
        malformed, good = error, decode_chunks(datas[: error.index])
    for chunk, at in zip(good, _times_of(receipt, ends), strict=False):
        decoded.add(chunk, at)
    # The torn last event of a stream that is known to be cut says nothing new.
    if malformed is not None and (is_whole or malformed.index < len(datas) - 1):
        raise malformed


def _data_before_done(decoded: Decoded, body: bytes) -> tuple[list[int], list[bytes]]:
    ends: list[int] = []
    datas: list[bytes] = []
    for end, data in data_events(body):
        if data[:1] == b"[" and data.strip() == b"[DONE]":
            decoded.is_done = True
            break
        ends.append(end)
        datas.append(data)
    return ends, datas


def _times_of_lines(receipt: Receipt, num_events: int) -> Iterator[float]:
    """Arrival of each event of a plain stream, whose every `\\n\\n` ends one (`[DONE]` is one of
    `num_events`). An event counts as there when its data is; nothing depends on its blank line."""
    pieces, stamps = receipt.pieces, receipt.stamps
    if len(pieces) == 1:
        return repeat(stamps[0])
    if any(piece[-2:] != b"\n\n" for piece in pieces):
        return _times_of(receipt, [end for end, _ in data_events(b"".join(pieces))])
    if len(pieces) == num_events:
        return iter(stamps)
    return chain.from_iterable(map(repeat, stamps, (piece.count(b"\n\n") for piece in pieces)))


def _times_of(receipt: Receipt, ends: Sequence[int]) -> Iterator[float]:
    """For each offset, the arrival of the piece that held the byte just before it."""
    stamps, pieces = receipt.stamps, receipt.pieces
    index, received = 0, len(pieces[0]) if pieces else 0
    for end in ends:
        while received < end:
            index += 1
            received += len(pieces[index])
        yield stamps[index]
