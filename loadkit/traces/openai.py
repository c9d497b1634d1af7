"""OpenAI request bodies, one a line: `messages` or `prompt`, and what is known of the reply.

Optional keys beside the body: timestamp (seconds), session_id, request_id, cache_salt, lora (the
adapter's name; requests of other models, adapters or salts share no block), response.
`response` is `{"content", "token_ids", "prompt_token_ids", "finish_reason", "latency_s"}` or an OpenAI
completion object. Where it has `prompt_token_ids` (vLLM's `return_token_ids`), those are the prompt's
tokens, whatever a tokenizer makes of the text; with `token_ids` too, none is needed. Bodies of the
Responses API, Anthropic's and Gemini's are formats of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec

from loadkit.traces.gaps import SAMPLING
from loadkit.traces.lines import Place
from loadkit.traces.reading import Length, Reading
from loadkit.traces.texts import Logged, Message, Reply, Short, TextRequest, TokenIds

NAME = "openai"

# Where servers put a reply's reasoning. It was computed before the content, in a form that the log
# does not show, so the content alone is not what follows the prompt in the cache: clients that strip
# it break the chain at the end of the prompt. With token_ids the log shows the reply as computed.
_REASONING = ("reasoning_content", "reasoning")


class Usage(msgspec.Struct):
    """The server's token counts."""

    prompt_tokens: Length | None = None


class Response(Short):
    """Either loadkit's short form or an OpenAI completion object (`choices`, `usage`)."""

    content: str | None = None
    tool_calls: list[Message] | None = None
    prompt_token_ids: TokenIds | None = None
    choices: list[dict[str, Any]] | None = None
    usage: Usage | None = None


class Body(Logged):
    """A body with what the log says around it; sampling options change no prompt."""

    NO_TEXT: ClassVar[frozenset[str]] = SAMPLING

    messages: list[Message] | None = None
    prompt: str | TokenIds | None = None
    tools: list[Message] | None = None
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
    """A body, and its reply."""

    response: Response | None = None


def matches(row: dict[str, Any]) -> bool:
    """Whether a log's first row looks like this format."""
    keys = row.keys()
    return bool(keys & {"messages", "prompt"}) and not keys & {"hash_ids", "output"}


def may_be_anthropic(row: dict[str, Any]) -> bool:
    """Whether a row that `matches` might be a body of Anthropic's API as well: plain messages."""
    messages = row.get("messages")
    if not isinstance(messages, list) or row.get("tools"):
        return False
    said = [message for message in messages if isinstance(message, dict)]
    return all(
        one.get("role") in ("user", "assistant") and not one.get("tool_calls") for one in said
    )


def requests(reading: Reading) -> Iterator[tuple[Place, TextRequest]]:
    """The log's requests, one a row."""
    for place, row in reading.rows(Row):
        with reading.row():
            request = request_of(place, row)
            if row.response is not None:
                add_response(place, request, row.response)
            yield place, request


def request_of(place: Place, body: Body) -> TextRequest:
    """The request that a body makes. FormatError unless exactly one key has the prompt."""
    if (body.messages is None) == (body.prompt is None):
        raise place.error("the row needs either `messages` or `prompt`, one of them")
    request = body.request(body.messages)
    request.prompt, request.tools = body.prompt, body.tools
    request.max_tokens = body.asked_tokens
    return request


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
    if told.token_ids is None and message.get("tool_calls"):
        return Reply(told.content or "", None, told.finish_reason, message=message)
    return _told(told.content, told.token_ids, told.finish_reason)
