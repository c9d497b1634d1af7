"""From received bytes to a Response: outcome, token times, usage, text."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, Literal

import orjson

from loadkit.client.exchange import Receipt
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
    elif receipt.status is not None:
        _Decoder(receipt, response).run()
    return response


class _Malformed(Exception):
    """Data that is no answer of an OpenAI-compatible server."""


class _Decoder:
    """Walks the events of one answer and fills a response."""

    def __init__(self, receipt: Receipt, response: Response):
        self.receipt, self.response = receipt, response
        self.body = b"".join(receipt.pieces)
        self.saw_done = False
        self._ends = list(accumulate(len(piece) for piece in receipt.pieces))
        self._texts: list[str] = []
        self._token_times: list[float] = []

    def run(self) -> None:
        streamed = looks_like_events(self.body, self.receipt.content_type)
        try:
            if streamed:
                self._read_events()
            elif self.response.outcome == "ok":
                self._add(_load(self.body), None)
        except _Malformed as error:
            self._fail("malformed", str(error))
        self._finish()
        self._judge(streamed)

    def _read_events(self) -> None:
        for end, data in data_events(self.body):
            if data.strip() == b"[DONE]":
                self.saw_done = True
                break
            try:
                chunk = _load(data)
            except _Malformed:
                if self.response.outcome == "ok" or end < len(self.body):
                    raise
                break  # the torn last event of a stream that is already known to be cut
            self._add(chunk, self._time_of(end))

    def _time_of(self, end: int) -> float:
        """Time of the receive that held the byte just before offset `end`."""
        return self.receipt.stamps[bisect_left(self._ends, end)]

    def _add(self, chunk: Mapping[str, Any], at: float | None) -> None:
        if chunk.get("error"):
            self._fail("cut", f"error in the answer: {_error_text(chunk)}")
            return
        self._read_usage(chunk)
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices:
            return
        choice = choices[0]
        if not isinstance(choice, Mapping):
            raise _Malformed("a choice is not an object")
        if isinstance(choice.get("finish_reason"), str):
            self.response.finish_reason = choice["finish_reason"]
        self._read_token(choice, at)

    def _read_usage(self, chunk: Mapping[str, Any]) -> None:
        if chunk.get("usage") or chunk.get("timings"):
            usage = read_usage(chunk)
            known = {k: v for k, v in usage._asdict().items() if v is not None}
            self.response.usage = self.response.usage._replace(**known)

    def _read_token(self, choice: Mapping[str, Any], at: float | None) -> None:
        part = choice.get("delta") or choice.get("message") or choice
        if not isinstance(part, Mapping):
            raise _Malformed("a delta is not an object")
        content = part.get("content") or part.get("text")
        if isinstance(content, str):
            self._texts.append(content)
        thought = part.get("reasoning_content") or part.get("reasoning")
        if at is not None and (content or thought or part.get("tool_calls")):
            self._token_times.append(at)
        ids = choice.get("token_ids")
        if isinstance(ids, list) and all(isinstance(token, int) for token in ids):
            self.response.token_ids = [*(self.response.token_ids or ()), *ids]

    def _finish(self) -> None:
        times, response = self._token_times, self.response
        response.text = "".join(self._texts)
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


def _load(data: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _Malformed(f"not JSON: {error}") from error
    if not isinstance(value, Mapping):
        raise _Malformed("not a JSON object")
    return value


def _read_error(body: bytes, response: Response) -> None:
    response.outcome = "http_error"
    try:
        response.error = _error_text(_load(body))
    except _Malformed:
        response.error = printable(body.decode("utf-8", "replace"))


def _error_text(answer: Mapping[str, Any]) -> str:
    error = answer.get("error") or answer.get("detail") or answer.get("message") or answer
    message = error.get("message") if isinstance(error, Mapping) else error
    return printable(str(message if message is not None else error))


def printable(text: str) -> str:
    """Server text made safe for a terminal and a table: one line, no control characters, short."""
    clean = "".join(c if c.isprintable() else " " for c in text[: MAX_ERROR_CHARS * 2])
    return " ".join(clean.split())[:MAX_ERROR_CHARS]
