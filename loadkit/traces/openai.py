"""OpenAI request bodies, one a line: `messages` or `prompt`, and what is known of the reply.

Optional keys beside the body: timestamp (seconds), session_id, cache_salt, response. `response` is
`{"content", "token_ids", "finish_reason", "latency_s"}` or an OpenAI completion object.

Which tokens a reply leaves in the cache: with token_ids all but the last, since the last sampled
token is never computed. With text only: all tokens of the text, since the sampled end-of-turn
token is not in it; all but the last if it was cut off by length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import msgspec

from loadkit.core.errors import InputError
from loadkit.core.tokenizer import Tokenizer
from loadkit.core.trace import Trace
from loadkit.traces.lines import Place, Seconds, decode_rows, empty_log, read_lines
from loadkit.traces.tokens import TokenRequest, TokenTraceBuilder

NAME = "openai"
DEFAULT_BLOCK_SIZE = 16
_ROWS_AT_ONCE = 256

TokenIds = list[Annotated[int, msgspec.Meta(ge=0, lt=2**31)]]


class Response(msgspec.Struct):
    """Either loadkit's short form or an OpenAI completion object (`choices`, `usage`)."""

    content: str | None = None
    token_ids: TokenIds | None = None
    finish_reason: str | None = None
    latency_s: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None
    choices: list[dict[str, Any]] | None = None


class Row(msgspec.Struct):
    """Sampling parameters and other keys of the body are skipped: they do not change the prompt."""

    messages: list[dict[str, Any]] | None = None
    prompt: str | TokenIds | None = None
    tools: list[dict[str, Any]] | None = None
    timestamp: Seconds | None = None
    session_id: str | int | None = None
    cache_salt: str | None = None
    response: Response | None = None


def matches(row: dict[str, Any]) -> bool:
    """Whether a log's first row looks like this format."""
    return ("messages" in row or "prompt" in row) and "hash_ids" not in row


def read(
    paths: Sequence[Path], *, block_size: int | None = None, tokenizer: Tokenizer | None = None
) -> Trace:
    """Read the files as one log in blocks of `block_size` (16 unless given).

    InputError if a row has text and `tokenizer` is None.
    """
    builder = TokenTraceBuilder(block_size or DEFAULT_BLOCK_SIZE)
    rows = decode_rows(read_lines(paths), Row)
    times: list[bool] = []
    while batch := list(islice(rows, _ROWS_AT_ONCE)):
        for (place, row), request in zip(batch, _tokenise(batch, tokenizer), strict=True):
            times.append(row.timestamp is not None)
            if times[0] != times[-1]:
                raise place.error("some rows have a timestamp, others none", "give all or none")
            builder.add(request)
    if not times:
        raise empty_log(paths)
    return builder.build()


def _tokenise(
    batch: Sequence[tuple[Place, Row]], tokenizer: Tokenizer | None
) -> Iterator[TokenRequest]:
    prompts = _prompt_tokens(batch, tokenizer)
    replies = [_reply_of(place, row.response) for place, row in batch]
    texts = [reply.content for reply in replies if reply and reply.token_ids is None]
    encoded = iter(_encode([text or "" for text in texts], tokenizer))
    for (_, row), prompt, reply in zip(batch, prompts, replies, strict=True):
        request = TokenRequest(
            prompt,
            session=row.session_id,
            salt=row.cache_salt or "",
            arrival_s=row.timestamp,
            latency_s=row.response.latency_s if row.response else None,
            text=row.messages if row.messages is not None else _as_text(row.prompt),
            tools=row.tools,
            reply_text=reply.content if reply else None,
        )
        if reply is not None:
            tokens = next(encoded) if reply.token_ids is None else reply.token_ids
            request.num_output_tokens, request.reply = _computed(tokens, reply)
        yield request


def _as_text(prompt: str | TokenIds | None) -> str | None:
    return prompt if isinstance(prompt, str) else None


def _computed(tokens: Sequence[int], reply: Response) -> tuple[int, Sequence[int]]:
    """Output tokens (of the text, if only that is known) and the ones that stay in the cache."""
    if reply.token_ids is not None or reply.finish_reason == "length":
        return len(tokens), tokens[:-1]
    return len(tokens), tokens


def _prompt_tokens(
    batch: Sequence[tuple[Place, Row]], tokenizer: Tokenizer | None
) -> list[Sequence[int]]:
    """Token ids of every prompt; chat prompts rendered first and encoded in one call."""
    rendered = [_rendered(place, row, tokenizer) for place, row in batch]
    chats = iter(_encode([text for text in rendered if text is not None], tokenizer))
    prompts: list[Sequence[int]] = []
    for (place, row), text in zip(batch, rendered, strict=True):
        if text is not None:
            prompts.append(next(chats))
        elif isinstance(row.prompt, str):
            prompts.append(_needed(tokenizer, place).encode(row.prompt))
        else:
            prompts.append(row.prompt or [])
    return prompts


def _rendered(place: Place, row: Row, tokenizer: Tokenizer | None) -> str | None:
    """Text of a chat prompt; None for a row with `prompt`."""
    if (row.messages is None) == (row.prompt is None):
        raise place.error("the row needs either `messages` or `prompt`")
    if row.messages is None:
        return None
    try:
        return _needed(tokenizer, place).render_chat(row.messages, row.tools)
    except InputError as error:
        if tokenizer is None:
            raise
        raise place.error(f"{error.where}: {error.what}", error.remedy) from error


def _encode(texts: list[str], tokenizer: Tokenizer | None) -> list[list[int]]:
    if not texts:
        return []
    return _needed(tokenizer, None).encode_batch(texts)


def _needed(tokenizer: Tokenizer | None, place: Place | None) -> Tokenizer:
    if tokenizer is None:
        raise InputError(
            "the log is text: blocks need the served model's tokenizer",
            where=str(place) if place else None,
            remedy="--tokenizer PATH-OR-NAME",
        )
    return tokenizer


def _reply_of(place: Place, response: Response | None) -> Response | None:
    """The reply in short form; None if the row tells nothing of its tokens."""
    if response is None or response.choices is None:
        told = response and (response.content is not None or response.token_ids is not None)
        return response if told else None
    if len(response.choices) != 1:
        raise place.error(
            f"the response has {len(response.choices)} choices", "log one request a choice"
        )
    return _from_choice(place, response.choices[0])


def _from_choice(place: Place, choice: dict[str, Any]) -> Response | None:
    message = choice.get("message") or {}
    short = {
        "content": message.get("content", choice.get("text")),
        "token_ids": choice.get("token_ids"),
        "finish_reason": choice.get("finish_reason"),
    }
    try:
        reply = msgspec.convert(short, Response)
    except msgspec.ValidationError as error:
        raise place.error(f"the response does not fit the format: {error}") from error
    return reply if reply.content is not None or reply.token_ids is not None else None
