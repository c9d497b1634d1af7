"""From received bytes to a Response: outcome, token times, usage, text."""

from __future__ import annotations

import math
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import Any, Literal
from urllib.parse import unquote

from loadkit.client.decoder import Decoded, ToolCall, decode_body
from loadkit.client.foreign import (
    MAX_ERROR_CHARS,
    MAX_NAME_CHARS,
    Malformed,
    Strip,
    are_token_ids,
    printable,
    read_json,
    unchanged,
)
from loadkit.client.receipt import Receipt
from loadkit.client.sse import looks_like_events
from loadkit.client.usage import Usage

_TOP_BYTE = 3 if sys.byteorder == "little" else 0
Outcome = Literal["ok", "http_error", "cut", "timeout", "malformed", "cancelled", "not_sent"]
REPEATS_KEY = "not believed: the answer repeats the API key or a part of it, which was taken out"


@dataclass(slots=True)
class Response:
    """What came back. `_at` fields are on the monotonic clock; None where it did not happen.

    first_token_at: arrival that completed the first non-empty token (content, reasoning, text or
    tool call); None for an answer that was not streamed, whose tokens cannot be timed.
    gaps_s: seconds between successive token events, 0 within one arrival.
    event_tokens: tokens of each token event, where the server sends ids and not one with every event.
    text: the answer's text; reasoning: what a reasoning model thought before it, apart from it.
    tool_calls: calls that the model asks for. token_ids: of the reply; prompt_token_ids: of the prompt
    as the server computed it, packed as `core.blocks.packed_tokens` does; None: not sent.
    retry_after_s: how long a 429 or 503 asked us to wait.
    resent: it went out twice, a kept connection being closed under the first copy.
    error of an ok answer: what in it is not believed (impossible token counts or ids, now None).
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
    event_tokens: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    text: str = ""
    reasoning: str = ""
    retry_after_s: float | None = None
    tool_calls: list[ToolCall] = field(default_factory=list)
    token_ids: list[int] | None = None
    prompt_token_ids: bytes | None = None
    resent: bool = False


def decode(receipt: Receipt, strip: Strip = unchanged) -> Response:
    """Decode what was received, however it ended; partial answers keep the times of their tokens.
    What no reader foresaw is `malformed`: a request that was sent has its label. `strip` is called on
    each text that is kept, whole, however many pieces it came in."""
    response = Response(
        outcome="ok",
        status=receipt.status,
        sent_at=receipt.sent_at,
        connect_s=receipt.connect_s,
        error=receipt.error,
        resent=receipt.resent,
    )
    try:
        _read(receipt, response, strip)
        _strip_texts(response, strip)
    except Exception as error:
        response = Response(
            "malformed",
            printable(f"not readable: {type(error).__name__}: {error}", strip),
            status=receipt.status,
            sent_at=receipt.sent_at,
            connect_s=receipt.connect_s,
            resent=receipt.resent,
        )
    return response


def _strip_texts(response: Response, strip: Strip) -> None:
    """A reply that repeats our key goes on without it, and says so; its token ids would spell it."""
    before = response.text, response.reasoning, response.finish_reason
    response.text, response.reasoning = strip(response.text), strip(response.reasoning)
    if response.finish_reason is not None:
        response.finish_reason = strip(response.finish_reason)
    is_same = before == (response.text, response.reasoning, response.finish_reason)
    for call in response.tool_calls:
        said = call.id, call.name, call.arguments
        call.id, call.name, call.arguments = map(strip, said)
        is_same = is_same and said == (call.id, call.name, call.arguments)
    if not is_same:
        response.token_ids = None
        if response.outcome == "ok":
            response.error = "; ".join(filter(None, (response.error, REPEATS_KEY)))


def _read(receipt: Receipt, response: Response, strip: Strip) -> None:
    if receipt.ended in ("complete", "closed"):
        response.completed_at = receipt.now
    elif receipt.ended is not None:
        response.outcome = receipt.ended  # type: ignore[assignment]  # the two words above are gone
    if receipt.status is None:
        return
    body = b"".join(receipt.pieces)
    if not 200 <= receipt.status < 300:
        _read_refusal(receipt, body, response, strip)
    elif receipt.headers.get(b"content-encoding", b"identity").lower() != b"identity":
        coding = printable(receipt.headers[b"content-encoding"].decode("latin-1"), strip)
        _fail(response, "malformed", f"content-encoding {coding}, which nobody asked for")
    else:
        _read_answer(receipt, body, response, strip)


def has_token(receipt: Receipt) -> bool:
    """Is there a token among what was received so far?"""
    return decode(receipt).first_token_at is not None


def _read_answer(receipt: Receipt, body: bytes, response: Response, strip: Strip) -> None:
    streamed = looks_like_events(body, receipt.content_type)
    is_whole = response.outcome == "ok"
    if not streamed and not is_whole:
        return  # half of a JSON object says nothing
    decoded = decode_body(receipt, body, streamed=streamed, is_whole=is_whole)
    _take(decoded, response)
    if receipt.framed and receipt.ended == "cut" and decoded.is_done and decoded.error is None:
        # All was said before the connection broke.
        response.outcome, response.error = "ok", None
        response.completed_at = receipt.now
    if decoded.malformed is not None:
        _fail(response, "malformed", printable(decoded.malformed, strip))
    elif decoded.error is not None:
        said = f"error in the answer: {_error_text({'error': decoded.error}, strip)}"
        _fail(response, "cut" if streamed else "http_error", said)
    elif streamed and not decoded.is_done and decoded.finish_reason is None:
        _fail(response, "cut", "the stream ended without finish_reason and [DONE]")
    doubts = [*_doubt_ids(response), *_doubt_prompt(decoded, response), *_doubt_usage(response)]
    if response.outcome == "ok" and doubts:
        response.error = f"not believed: {' and '.join(doubts)}"


def _take(decoded: Decoded, response: Response) -> None:
    times = decoded.token_times
    response.text, response.reasoning = "".join(decoded.texts), "".join(decoded.thoughts)
    response.finish_reason = decoded.finish_reason and decoded.finish_reason[:MAX_NAME_CHARS]
    response.token_ids = decoded.token_ids
    response.usage, response.tool_calls = decoded.usage, decoded.tool_calls
    if times:
        response.first_token_at, response.last_token_at = times[0], times[-1]
        response.gaps_s = [b - a for a, b in pairwise(times)]
        counts = decoded.event_tokens
        if len(counts) == len(times) and set(counts) != {1}:
            response.event_tokens = counts


def _doubt_ids(response: Response) -> Iterator[str]:
    """An id that cannot be says that the others are not to be relied on either."""
    ids = response.token_ids
    if ids is not None and not are_token_ids(ids):
        response.token_ids, response.event_tokens = None, []
        yield "a token id outside of 0 to 2^31 - 1"
    elif ids is not None and len(ids) != (count := response.usage.output_tokens or len(ids)):
        response.token_ids, response.event_tokens = None, []
        yield f"{len(ids)} token ids of {count} output tokens"


def _doubt_prompt(decoded: Decoded, response: Response) -> Iterator[str]:
    """The prompt's ids, if they can be ids and are as many as the server counts in the prompt."""
    ids, count = decoded.prompt_token_ids, response.usage.prompt_tokens
    if not ids:
        return
    packed = _packed(ids)
    if packed is None:
        yield "prompt token ids that are none"
    elif count not in (None, len(ids)):
        yield f"{len(ids)} prompt token ids of {count} prompt tokens"
    else:
        response.prompt_token_ids = packed


def _packed(ids: Any) -> bytes | None:
    """As `core.blocks.packed_tokens`, in less than half its time, which counts here: prompts are long.
    None: no list of numbers, or some that are no token ids."""
    try:
        packed = struct.pack(f"={len(ids)}i", *ids)
    except (struct.error, TypeError):
        return None
    return packed if packed[_TOP_BYTE::4].isascii() else None  # a negative number's is above 127


def _doubt_usage(response: Response) -> Iterator[str]:
    """More cached tokens than prompt tokens cannot be: then the cached ones are not known."""
    usage = response.usage
    cached, prompt = usage.cached_tokens, usage.prompt_tokens
    if cached is not None and prompt is not None and cached > prompt:
        said = f"{cached} cached of {prompt} prompt tokens"
        response.usage = usage = usage._replace(cached_tokens=None, doubt=said)
    if usage.doubt is not None:
        yield usage.doubt


def _fail(response: Response, outcome: Outcome, error: str) -> None:
    if response.outcome == "ok":
        response.outcome, response.error = outcome, error
        response.completed_at = None


def _read_refusal(receipt: Receipt, body: bytes, response: Response, strip: Strip) -> None:
    response.outcome = "http_error"
    status = receipt.status or 0
    if status < 400:
        where = receipt.headers.get(b"location", b"elsewhere").decode("latin-1")
        response.error = printable(f"redirected to {unquote(where)}", strip)
        return
    try:
        answer = read_json(body)
    except Malformed:
        answer = None
    response.error = (
        _error_text(answer, strip)
        if isinstance(answer, dict)
        else printable(body[: 8 * MAX_ERROR_CHARS].decode("utf-8", "replace"), strip)
    )
    if status in (429, 503) and b"retry-after" in receipt.headers:
        asked = receipt.headers[b"retry-after"].decode("latin-1")
        date = receipt.headers.get(b"date", b"").decode("latin-1")
        response.retry_after_s = retry_after_s(asked, date or None)


def _error_text(answer: Mapping[str, Any], strip: Strip) -> str:
    error = answer.get("error") or answer.get("detail") or answer.get("message") or answer
    message = error.get("message") if isinstance(error, Mapping) else error
    said = message if message is not None else error
    try:
        return printable(said if isinstance(said, str) else str(said), strip)
    except (RecursionError, ValueError):  # nested too deep, or a number of too many digits
        return "an error that cannot be shown"


def retry_after_s(value: str, date: str | None = None) -> float | None:
    """Seconds that a Retry-After header (seconds, or an HTTP date) asks us to wait, at least 0; None
    when it is neither of the two forms.

    date: the answer's Date header, which a waiting time counts from so that a server's wrong clock
    does no harm; without it our own clock is used. RFC 9110, 10.2.3.
    """
    try:
        seconds = float(value)
    except ValueError:
        until = _unix(value)
        now = _unix(date) if date else None
        seconds = math.nan if until is None else until - (time.time() if now is None else now)
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _unix(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
