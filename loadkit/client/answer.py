"""From received bytes to a Response: outcome, token times, usage, text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import msgspec

from loadkit.client.chunks import Choice, Chunk, Malformed, decode_chunk, decode_chunks
from loadkit.client.exchange import Receipt
from loadkit.client.retry_after import retry_after_s
from loadkit.client.sse import data_events, looks_like_events
from loadkit.client.usage import Usage, read_usage

MAX_ERROR_CHARS = 300
Outcome = Literal["ok", "http_error", "cut", "timeout", "malformed", "cancelled", "not_sent"]


@dataclass(slots=True)
class Response:
    """What came back. `_at` fields are on the monotonic clock; None where it did not happen.

    first_token_at: receive that completed the first non-empty token (content, reasoning, text or
    tool call); None for an answer that was not streamed, whose tokens cannot be timed.
    gaps_s: seconds between successive token events, 0 within one receive.
    text: the answer's text; reasoning: what a reasoning model thought before it, apart from it.
    retry_after_s: how long a 429 or 503 asked us to wait.
    """

    outcome: Outcome
    error: str | None = None
    status: int | None = None
    sent_at: float | None = None
    connect_s: float | None = None
    first_token_at: float | None = None
    last_token_at: float | None = None
    completed_at: float | None = None
    gaps_s: list[float] = field(default_factory=list)
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    text: str = ""
    reasoning: str = ""
    retry_after_s: float | None = None
    token_ids: list[int] | None = None


def decode(receipt: Receipt) -> Response:
    """Decode what was received, however it ended; partial answers keep the times of their tokens."""
    response = Response(
        outcome="ok", status=receipt.status, sent_at=receipt.sent_at, error=receipt.error
    )
    if receipt.ended in ("complete", "closed"):
        response.completed_at = receipt.now
    elif receipt.ended is not None:
        response.outcome = receipt.ended  # type: ignore[assignment]  # the two words above are gone
    if receipt.status is not None and receipt.status >= 400:
        _read_error(b"".join(receipt.pieces), response)
        if receipt.status in (429, 503) and receipt.retry_after is not None:
            date = None if receipt.date is None else receipt.date.decode("latin-1")
            response.retry_after_s = retry_after_s(receipt.retry_after.decode("latin-1"), date)
    elif receipt.status is not None:
        _Decoder(receipt, response).run()
    return response


class _Decoder:
    """Walks the events of one answer and fills a response."""

    def __init__(self, receipt: Receipt, response: Response):
        self.receipt, self.response = receipt, response
        self.body = b"".join(receipt.pieces)
        self.saw_done = False
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._token_times: list[float] = []
        self._usage: Chunk | None = None

    def run(self) -> None:
        streamed = looks_like_events(self.body, self.receipt.content_type)
        try:
            if streamed:
                self._read_events()
            elif self.response.outcome == "ok":
                self._add(decode_chunk(self.body), None)
        except Malformed as error:
            self._fail("malformed", str(error))
        self._finish()
        self._judge(streamed)

    def _read_events(self) -> None:
        ends, datas = self._data_before_done()
        good: Sequence[Chunk]
        malformed: Malformed | None = None
        try:
            good = decode_chunks(datas)
        except Malformed as error:
            malformed, good = error, decode_chunks(datas[: error.index])
        for chunk, time in zip(good, self._times_of(ends), strict=False):
            self._add(chunk, time)
        # The torn last event of a stream that is known to be cut says nothing new.
        torn = malformed and self.response.outcome != "ok" and malformed.index == len(datas) - 1
        if malformed is not None and not torn:
            raise malformed

    def _data_before_done(self) -> tuple[list[int], list[bytes]]:
        ends: list[int] = []
        datas: list[bytes] = []
        for end, data in data_events(self.body):
            if data[:1] == b"[" and data.strip() == b"[DONE]":
                self.saw_done = True
                break
            ends.append(end)
            datas.append(data)
        return ends, datas

    def _times_of(self, ends: list[int]) -> Iterator[float]:
        """For each offset, the time of the receive that held the byte just before it."""
        stamps, pieces = self.receipt.stamps, self.receipt.pieces
        index, received = 0, len(pieces[0]) if pieces else 0
        for end in ends:
            while received < end:
                index += 1
                received += len(pieces[index])
            yield stamps[index]

    def _add(self, chunk: Chunk, at: float | None) -> None:
        if chunk.error:
            self._fail("cut", f"error in the answer: {_error_text({'error': chunk.error})}")
            return
        if chunk.usage or chunk.timings:
            self._usage = chunk
        if not chunk.choices:
            return
        choice = chunk.choices[0]
        if choice.finish_reason is not None:
            self.response.finish_reason = choice.finish_reason
        if choice.token_ids:
            self.response.token_ids = [*(self.response.token_ids or ()), *choice.token_ids]
        if self._read_text(choice) and at is not None:
            self._token_times.append(at)

    def _read_text(self, choice: Choice) -> bool:
        """Keep the text. True when there was a token: text, reasoning or a tool call."""
        part = choice.delta or choice.message
        content = choice.text if part is None else part.content
        if content:
            self._texts.append(content)
            return True
        if part is None:
            return False
        thought = part.reasoning_content or part.reasoning
        if thought:
            self._thoughts.append(thought)
        return bool(thought or part.tool_calls)

    def _finish(self) -> None:
        times, response = self._token_times, self.response
        response.text, response.reasoning = "".join(self._texts), "".join(self._thoughts)
        if self._usage is not None:
            last = self._usage
            response.usage = read_usage({"usage": last.usage, "timings": last.timings})
        if times:
            response.first_token_at, response.last_token_at = times[0], times[-1]
            response.gaps_s = [b - a for a, b in pairwise(times)]

    def _judge(self, streamed: bool) -> None:
        """An event stream must say that it ended: by `[DONE]`, else by a finish_reason."""
        if self.receipt.framed and self.receipt.ended == "cut" and self.saw_done:
            self.response.outcome, self.response.error = "ok", None
            self.response.completed_at = self.receipt.now
        elif streamed and not self.saw_done and self.response.finish_reason is None:
            self._fail("cut", "the stream ended without finish_reason and [DONE]")

    def _fail(self, outcome: Outcome, error: str) -> None:
        if self.response.outcome == "ok":
            self.response.outcome, self.response.error = outcome, error
            self.response.completed_at = None


def _read_error(body: bytes, response: Response) -> None:
    response.outcome = "http_error"
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer = None
    if isinstance(answer, dict):
        response.error = _error_text(answer)
    else:
        response.error = printable(body.decode("utf-8", "replace"))


def _error_text(answer: Mapping[str, Any]) -> str:
    error = answer.get("error") or answer.get("detail") or answer.get("message") or answer
    message = error.get("message") if isinstance(error, Mapping) else error
    return printable(str(message if message is not None else error))


def printable(text: str) -> str:
    """Server text made safe for a terminal and a table: one line, no control characters, short."""
    clean = "".join(c if c.isprintable() else " " for c in text[: MAX_ERROR_CHARS * 2])
    return " ".join(clean.split())[:MAX_ERROR_CHARS]
