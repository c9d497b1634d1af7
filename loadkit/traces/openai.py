"""OpenAI request bodies, one a line: `messages`, `prompt` or `input`, and what is known of the reply.

Optional keys beside the body: timestamp (seconds), session_id, request_id, cache_salt, lora (the
adapter's name; requests of other models, adapters or salts share no block), response.
`response` is `{"content", "token_ids", "prompt_token_ids", "finish_reason", "latency_s"}` or an OpenAI
completion object. Where it has `prompt_token_ids` (vLLM's `return_token_ids`), those are the prompt's
tokens, whatever a tokenizer makes of the text; with `token_ids` too, none is needed. `input` and `instructions` are the Responses API's names for messages and system message;
`input` is text or a list of messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from loadkit.traces.lines import Place
from loadkit.traces.reading import Duration, Length, Name, Reading, Seconds
from loadkit.traces.texts import Reply, TextRequest

NAME = "openai"

# Where servers put a reply's reasoning. It was computed before the content, in a form that the log
# does not show, so the content alone is not what follows the prompt in the cache: clients that strip
# it break the chain at the end of the prompt. With token_ids the log shows the reply as computed.
_REASONING = ("reasoning_content", "reasoning")

TokenIds = list[Annotated[int, msgspec.Meta(ge=0, lt=2**31)]]
Message = dict[str, Any]


class Usage(msgspec.Struct):
    """The server's token counts."""

    prompt_tokens: Length | None = None


class Response(msgspec.Struct):
    """Either loadkit's short form or an OpenAI completion object (`choices`, `usage`)."""

    content: str | None = None
    tool_calls: list[Message] | None = None
    token_ids: TokenIds | None = None
    prompt_token_ids: TokenIds | None = None
    finish_reason: str | None = None
    latency_s: Duration | None = None
    choices: list[dict[str, Any]] | None = None
    usage: Usage | None = None


class Body(msgspec.Struct):
    """Sampling parameters and other keys of the body are skipped: they do not change the prompt."""

    messages: list[Message] | None = None
    prompt: str | TokenIds | None = None
    input: str | list[Message] | None = None
    output: Any = None
    context: Any = None
    instructions: str | None = None
    tools: list[Message] | None = None
    cache_salt: str | None = None
    model: str | None = None
    lora: str | None = None
    max_tokens: Any = None
    max_completion_tokens: Any = None

    @property
    def asked_tokens(self) -> int | None:
        """The most output tokens asked for; None where the body does not say, or not as a number."""
        for asked in (self.max_tokens, self.max_completion_tokens):
            if isinstance(asked, int) and asked > 0:
                return asked
        return None


class Row(Body):
    """A body with what the log says around it."""

    timestamp: Seconds | None = None
    session_id: Name | None = None
    request_id: Name | None = None
    response: Response | None = None


def matches(row: dict[str, Any]) -> bool:
    """Whether a log's first row looks like this format."""
    keys = row.keys()
    return bool(keys & {"messages", "prompt", "input"}) and not keys & {"hash_ids", "output"}


def requests(reading: Reading) -> Iterator[tuple[Place, TextRequest]]:
    """The log's requests, one a row."""
    for place, row in reading.rows(Row):
        with reading.row():
            request = request_of(place, row)
            request.session, request.request_id = row.session_id, row.request_id
            request.arrival_s = row.timestamp
            if row.response is not None:
                add_response(place, request, row.response)
            yield place, request


def request_of(place: Place, body: Body) -> TextRequest:
    """The request that a body makes. FormatError unless exactly one key has the prompt."""
    given = [value for value in (body.messages, body.prompt, body.input) if value is not None]
    if len(given) != 1:
        raise place.error("the row needs either `messages` or `prompt` (or `input`), one of them")
    if isinstance(body.input, str) and isinstance(body.output, str):
        raise place.error(
            "`input` and `output` are text, as in LMCache's traces", "--format lmcache"
        )
    if isinstance(body.input, str) and isinstance(body.context, str):
        raise place.error("`input` asks about a `context`, as in LongBench", "--format longbench")
    return TextRequest(
        messages=body.messages if body.input is None else _from_input(place, body),
        prompt=body.prompt,
        tools=body.tools,
        salt=body.cache_salt or "",
        model="\0".join(name for name in (body.model, body.lora) if name),
        max_tokens=body.asked_tokens,
    )


def _from_input(place: Place, body: Body) -> list[Message]:
    """Messages of a Responses API body."""
    told = [] if body.instructions is None else [{"role": "system", "content": body.instructions}]
    if isinstance(body.input, str):
        return [*told, {"role": "user", "content": body.input}]
    items = body.input or []
    if not all("role" in item for item in items):
        raise place.error("`input` has items that are no messages", "log `messages` instead")
    return [*told, *items]


def add_response(place: Place, request: TextRequest, response: Response) -> None:
    """Add what a response says to its request."""
    request.latency_s = response.latency_s
    request.usage_tokens = response.usage.prompt_tokens if response.usage else None
    request.reply = reply_of(place, response)
    request.prompt_ids = response.prompt_token_ids or _ids_of_choice(place, response) or None


def _ids_of_choice(place: Place, response: Response) -> list[int] | None:
    """vLLM has the prompt's ids of a text completion in its choice."""
    said = response.choices[0].get("prompt_token_ids") if response.choices else None
    try:
        return msgspec.convert(said, TokenIds | None)
    except msgspec.ValidationError as error:
        raise place.error(f"the response does not fit the format: {error}") from error


def reply_of(place: Place, response: Response) -> Reply | None:
    """The reply; None if the row tells nothing of its tokens."""
    if response.choices is None:
        reply = _told(response.content, response.token_ids, response.finish_reason)
        if reply is not None and response.tool_calls:
            said = {"role": "assistant", "content": response.content}
            reply.message = said | {"tool_calls": response.tool_calls}
        return reply
    if len(response.choices) != 1:
        raise place.error(
            f"the response has {len(response.choices)} choices", "log one request a choice"
        )
    return _from_choice(place, response.choices[0])


def _told(content: str | None, token_ids: list[int] | None, reason: str | None) -> Reply | None:
    if content is None and token_ids is None:
        return None
    return Reply(content, token_ids, reason)


def _from_choice(place: Place, choice: dict[str, Any]) -> Reply | None:
    message = choice.get("message") or {}
    if not isinstance(message, dict):
        raise place.error("the response does not fit the format: `message` is no object")
    short = {
        "content": message.get("content", choice.get("text")),
        "token_ids": choice.get("token_ids"),
        "finish_reason": choice.get("finish_reason"),
    }
    try:
        told = msgspec.convert(short, Response)
    except msgspec.ValidationError as error:
        raise place.error(f"the response does not fit the format: {error}") from error
    if told.token_ids is None and any(message.get(key) for key in _REASONING):
        return None
    return _told(told.content, told.token_ids, told.finish_reason)
