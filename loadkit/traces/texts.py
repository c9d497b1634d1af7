"""Text logs: requests as messages, text or token ids -> rendered, tokenised in batches, hashed.

The tokenizer works on the next batch, on all cores and outside the interpreter's lock, while this
one is hashed.

Which tokens a reply leaves in the cache: with token_ids all but the last, since the last sampled
token is never computed. With text only: all tokens of the text, since the sampled end-of-turn
token is not in it; all but the last if it was cut off by length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Annotated, Any

import msgspec

from loadkit.core.blocks import packed_tokens
from loadkit.core.errors import InputError
from loadkit.core.tokenizer import Tokenizer
from loadkit.core.trace import Trace
from loadkit.traces.id_rows import IdRow
from loadkit.traces.lines import Place
from loadkit.traces.reading import Duration, Name, Reading, Seconds
from loadkit.traces.tokens import TokenHasher, TokenRequest, TokenTraceBuilder

DEFAULT_BLOCK_SIZE = 16
_REQUESTS_AT_ONCE = 256
_CHARS_AT_ONCE = 4_000_000
# Seconds since 1970 pass this in the year 5138; a larger stamp is in a smaller unit.
_LARGEST_SECONDS = 1e11
# How far the log's own prompt token counts may be from ours before it is said.
_USAGE_TOLERANCE = 0.01


TokenIds = list[Annotated[int, msgspec.Meta(ge=0, lt=2**31)]]
Message = dict[str, Any]


class Reply(msgspec.Struct):
    """What is known of a reply: its text or its token ids. message: it as a chat message."""

    content: str | None = None
    token_ids: list[int] | None = None
    finish_reason: str | None = None
    message: Any | None = None


def reply_of(
    said: Sequence[Message], token_ids: list[int] | None = None, reason: str | None = None
) -> Reply | None:
    """A reply that was mapped to chat messages. None if its tokens are not known: it is more than one
    message, or holds reasoning or parts that are no text, and its token ids are not logged."""
    if token_ids is not None:
        return Reply(None, token_ids, reason)
    if len(said) != 1 or said[0]["role"] != "assistant" or "reasoning_content" in said[0]:
        return None
    content = said[0].get("content") or ""
    if not isinstance(content, str):
        if any(part["type"] != "text" for part in content):
            return None
        content = "".join(part["text"] for part in content)
    if not said[0].get("tool_calls"):
        return Reply(content, None, reason)
    return Reply(content, None, reason, message={**said[0], "content": content})


class TextRequest(msgspec.Struct):
    """One request of a text log: either messages or a prompt. Times in seconds, None if unknown.

    prompt_ids: the prompt's token ids as the server computed them, beside what they were made of.
    usage_tokens: prompt tokens as the server counted them, to check the tokenizer against.
    max_tokens: the most that was asked for; it changes no prompt, but whoever sends it again asks so.
    missing: prompt text that the row names and the log does not hold; empty if it is all there.
    """

    messages: list[Message] | None = None
    prompt: str | list[int] | None = None
    prompt_ids: list[int] | None = None
    tools: list[Any] | None = None
    session: Name | None = None
    salt: str = ""
    model: str = ""
    request_id: Name | None = None
    arrival_s: float | None = None
    latency_s: float | None = None
    reply: Reply | None = None
    usage_tokens: int | None = None
    max_tokens: int | None = None
    missing: tuple[str, ...] = ()


class Logged(msgspec.Struct):
    """What a log may say around a request's body, the same for every API."""

    timestamp: Seconds | None = None
    session_id: Name | None = None
    request_id: Name | None = None
    cache_salt: str | None = None
    model: str | None = None
    lora: str | None = None

    def request(self, messages: list[Message] | None) -> TextRequest:
        """A request of these messages, with what the log says around it."""
        return TextRequest(
            messages=messages,
            session=self.session_id,
            salt=self.cache_salt or "",
            model="\0".join(name for name in (self.model, self.lora) if name),
            request_id=self.request_id,
            arrival_s=self.timestamp,
        )


class Short(msgspec.Struct):
    """loadkit's own keys of a response, beside those of each API."""

    token_ids: TokenIds | None = None
    finish_reason: str | None = None
    latency_s: Duration | None = None


Requests = Iterable[tuple[Place, TextRequest]]


def text_trace(
    reading: Reading,
    requests: Requests,
    tokenizer: Tokenizer | None,
    block_size: int | None = None,
    notes: Callable[[], Sequence[str]] = tuple,
) -> Trace:
    """The Trace of a text log in blocks of `block_size` (16 unless given).

    notes: more warnings, asked for once all requests are read. InputError if a request is text and
    there is no tokenizer.
    """
    builder = TokenTraceBuilder(block_size or DEFAULT_BLOCK_SIZE)
    usage = _Usage()
    for batch in _tokenised(reading, requests, tokenizer):
        for place, request, tokens in batch:
            with reading.row():
                builder.add(tokens, place, request.request_id)
                usage.add(request, len(tokens.prompt))
    if not len(builder):
        raise reading.empty()
    return builder.build([*reading.warnings(), *notes(), *usage.warnings()])


class HashedTexts:
    """A text log's prompts one by one, tokenised in batches and hashed; no text stays."""

    def __init__(
        self, reading: Reading, requests: Requests, tokenizer: Tokenizer | None, block_size: int
    ):
        self._source = reading, requests, tokenizer
        self._hasher, self._usage = TokenHasher(block_size), _Usage()

    def id_rows(self) -> Iterator[IdRow]:
        """The prompts in the order read. InputError if a request is text without a tokenizer."""
        for batch in _tokenised(*self._source):
            for place, request, tokens in batch:
                yield self._id_row(place, request, tokens)

    def notes(self) -> list[str]:
        """What the log says against itself, once all is read."""
        return [*self._usage.warnings(), *self._hasher.notes()]

    def _id_row(self, place: Place, request: TextRequest, tokens: TokenRequest) -> IdRow:
        packed, root = packed_tokens(tokens.prompt), self._hasher.root(tokens)
        self._usage.add(request, len(tokens.prompt))
        return IdRow(
            place,
            self._hasher.chain(packed, root),
            len(tokens.prompt),
            prompt_key=self._hasher.key(packed, root),
            arrival_s=request.arrival_s,
            output_tokens=tokens.num_output_tokens,
            session=request.session,
            request_id=request.request_id,
            block_size=self._hasher.block_size,
            has_reply=bool(tokens.reply),
        )


def rendered(place: Place, request: TextRequest, tokenizer: Tokenizer | None) -> str | None:
    """Text of a chat prompt; None for a request with `prompt`, or whose token ids are known.
    FormatError if it cannot be."""
    if (request.messages is None) == (request.prompt is None):
        raise place.error("the row needs either `messages` or `prompt`")
    if request.messages is None or request.prompt_ids is not None:
        return None
    try:
        return needed(tokenizer, place).render_chat(request.messages, request.tools)
    except InputError as error:
        if tokenizer is None:
            raise
        raise place.error(f"{error.where}: {error.what}", error.remedy) from error


def needed(tokenizer: Tokenizer | None, place: Place | None) -> Tokenizer:
    """The tokenizer. InputError, which no skipping of rows passes over, if there is none."""
    if tokenizer is None:
        raise InputError(
            "the log is text: blocks need the served model's tokenizer",
            where=str(place) if place else None,
            remedy="--tokenizer PATH-OR-NAME",
        )
    return tokenizer


def _reply_text(reply: Reply, request: TextRequest, chat: str | None, tokenizer: Tokenizer) -> str:
    """The text that was generated: the content, or what the template writes for calls of tools."""
    message, text = reply.message, None
    if chat is not None and isinstance(message, dict) and message.get("tool_calls"):
        said = {"role": "assistant", **message}
        text = tokenizer.render_reply(chat, request.messages or [], said, request.tools)
    return reply.content or "" if text is None else text


class _Batch:
    """Requests with the texts to encode: chats and replies as they are, prompts with BOS."""

    def __init__(self) -> None:
        self.rows: list[tuple[Place, TextRequest]] = []
        self.bare: list[str] = []
        self.prompts: list[str] = []
        self.num_chars = 0

    def add(self, place: Place, request: TextRequest, tokenizer: Tokenizer | None) -> str | None:
        """Take a request. Returns its chat prompt as text; None if it has none."""
        chat, prompt, reply = rendered(place, request, tokenizer), request.prompt, request.reply
        texts = [] if chat is None else [chat]
        if reply is not None and reply.token_ids is None:
            texts.append(_reply_text(reply, request, chat, needed(tokenizer, place)))
        if isinstance(prompt, str) and request.prompt_ids is None:
            needed(tokenizer, place)
            self.prompts.append(prompt)
            self.num_chars += len(prompt)
        self.bare += texts
        self.num_chars += sum(map(len, texts))
        self.rows.append((place, request))
        return chat

    @property
    def is_full(self) -> bool:
        return len(self.rows) >= _REQUESTS_AT_ONCE or self.num_chars >= _CHARS_AT_ONCE

    def encoded(self, tokenizer: Tokenizer | None) -> tuple[list[list[int]], list[list[int]]]:
        if tokenizer is None:
            return [], []
        return (
            tokenizer.encode_batch(self.bare),
            tokenizer.encode_batch(self.prompts, add_special_tokens=True),
        )


Tokenised = list[tuple[Place, TextRequest, TokenRequest]]


def _tokenised(
    reading: Reading, requests: Requests, tokenizer: Tokenizer | None
) -> Iterator[Tokenised]:
    """Batches of requests with their tokens, one batch being encoded ahead."""
    with ThreadPoolExecutor(1, thread_name_prefix="tokenise") as ahead:
        waiting: tuple[_Batch, Future[tuple[list[list[int]], list[list[int]]]]] | None = None
        for batch in _batches(reading, requests, tokenizer):
            coming = batch, ahead.submit(batch.encoded, tokenizer)
            if waiting is not None:
                yield _paired(waiting[0], *waiting[1].result())
            waiting = coming
        if waiting is not None:
            yield _paired(waiting[0], *waiting[1].result())


def _batches(reading: Reading, requests: Requests, tokenizer: Tokenizer | None) -> Iterator[_Batch]:
    batch = _Batch()
    for place, request in requests:
        with reading.row():
            chat = batch.add(place, request, tokenizer)
            if chat is not None:
                reading.gaps.written(place, request.messages or (), request.tools or (), chat)
        if batch.is_full:
            yield batch
            batch = _Batch()
    if batch.rows:
        yield batch


def _paired(batch: _Batch, bare: list[list[int]], prompts: list[list[int]]) -> Tokenised:
    """Give every request its tokens: both lists are in the order in which `_Batch.add` filled them."""
    next_bare, next_prompt = iter(bare), iter(prompts)
    out: Tokenised = []
    for place, request in batch.rows:
        if request.prompt_ids is not None:
            tokens = TokenRequest(request.prompt_ids)
        elif request.messages is not None:
            tokens = TokenRequest(next(next_bare))
        elif isinstance(request.prompt, str):
            tokens = TokenRequest(next(next_prompt))
        else:
            tokens = TokenRequest(request.prompt or [])
        if (reply := request.reply) is not None:
            ids = next(next_bare) if reply.token_ids is None else reply.token_ids
            tokens.num_output_tokens, tokens.reply = _computed(ids, reply)
            tokens.reply_text = reply.content if reply.message is None else reply.message
        _describe(tokens, request)
        out.append((place, request, tokens))
    return out


def _describe(tokens: TokenRequest, request: TextRequest) -> None:
    tokens.session, tokens.tools = request.session, request.tools
    tokens.model, tokens.salt = request.model, request.salt
    tokens.arrival_s, tokens.latency_s = request.arrival_s, request.latency_s
    tokens.text = request.messages
    if isinstance(request.prompt, str):
        tokens.text = request.prompt


def _computed(ids: list[int], reply: Reply) -> tuple[int, Sequence[int]]:
    """Output tokens (of the text, if only that is known) and the ones that stay in the cache."""
    if reply.token_ids is not None or reply.finish_reason == "length":
        return len(ids), ids[:-1]
    return len(ids), ids


class _Usage:
    """Checks the log against itself: its server's prompt token counts, and the unit of its times."""

    def __init__(self) -> None:
        self._theirs = self._ours = 0
        self._latest = 0.0

    def add(self, request: TextRequest, num_tokens: int) -> None:
        if request.usage_tokens is not None:
            self._theirs += request.usage_tokens
            self._ours += num_tokens
        self._latest = max(self._latest, request.arrival_s or 0.0)

    def warnings(self) -> list[str]:
        said = []
        if abs(self._theirs - self._ours) > _USAGE_TOLERANCE * self._theirs:
            said.append(
                f"the log's server counted {self._theirs:,} prompt tokens where this tokenizer and "
                f"template give {self._ours:,}: they are not the served ones, or tools are missing"
            )
        if self._latest > _LARGEST_SECONDS:
            said.append(
                f"timestamps up to {self._latest:.4g} cannot be seconds: times, and so rates over "
                "time, are in another unit"
            )
        return said
