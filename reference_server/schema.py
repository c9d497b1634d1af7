"""What a request may say: closed, and bounded in every list, number and string.

Unknown fields are refused, so that nobody believes in an option that does nothing. Fields that
cannot change the tokens are ignored by list; options that are not served are accepted only at the
value that means "off".
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from loadkit.core.chats import for_template

MAX_STOPS, MAX_STOP_CHARS, MAX_STOP_IDS = 16, 256, 64
MAX_CHOICES, MAX_LOGPROBS = 16, 20
MAX_MESSAGES, MAX_TOOLS = 4096, 128
MAX_NUMBER = 10_000_000

IGNORED = frozenset(
    {
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
OFF: dict[str, tuple[object, ...]] = {
    "best_of": (None, 1),
    "echo": (None, False),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "min_p": (None, 0),
    "modalities": (None, ["text"]),
    "presence_penalty": (None, 0),
    "repetition_penalty": (None, 1),
    "response_format": (None, {"type": "text"}),
    "suffix": (None, ""),
    "tool_choice": (None, "none", "auto"),
}
NOT_SERVED = {
    "echo": "is not served: return_token_ids gives the prompt's ids, /detokenize their text",
    "response_format": "is served as text only: no grammar of a request's reaches the engine",
    "tool_choice": "is none or auto: tools are put into the prompt, calls are not forced",
}

Text = Annotated[str, Field(max_length=4_000_000)]
ShortText = Annotated[str, Field(min_length=1, max_length=256)]
Count = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
TokenId = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_NUMBER, fail_fast=True)]


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def _stop_list(value: object) -> object:
    """None, one string or a list."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


StopStrings = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]],
    BeforeValidator(_stop_list),
    Field(max_length=MAX_STOPS),
]


class StreamOptions(Closed):
    include_usage: bool = False
    continuous_usage_stats: Literal[False] = False
    include_obfuscation: Literal[False] = False


class GenerationRequest(Closed):
    """What chat and text completions have in common."""

    model: ShortText | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=MAX_NUMBER)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: StopStrings = Field(default_factory=list)
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_IDS)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_NUMBER)] | None = None
    min_tokens: Count = 0
    ignore_eos: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None
    return_token_ids: bool = False
    cache_salt: ShortText | None = None
    metadata: Annotated[dict[str, Text], Field(max_length=64)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_what_changes_nothing(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {k: v for k, v in values.items() if not _changes_nothing(k, v)}

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


def _changes_nothing(name: str, value: object) -> bool:
    if name in IGNORED:
        return True
    if name not in OFF:
        return False
    if value not in OFF[name]:
        why = NOT_SERVED.get(name, "is not supported by this server")
        raise PydanticCustomError("not_served", "{param} {why}", {"param": name, "why": why})
    return True


class TextPart(Closed):
    type: Literal["text"]
    text: Text


class Message(Closed):
    """One chat message. Images and audio are not served."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[TextPart], Field(max_length=1024)] | None = None
    name: ShortText | None = None
    tool_calls: Annotated[list[dict[str, Any]], Field(max_length=MAX_TOOLS)] | None = None
    tool_call_id: ShortText | None = None
    refusal: None = None

    def for_template(self) -> dict[str, Any]:
        """As chat templates expect it: text parts joined, absent fields left out."""
        return for_template(self.model_dump(exclude_none=True))


class ChatRequest(GenerationRequest):
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    tools: Annotated[list[dict[str, Any]], Field(max_length=MAX_TOOLS)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_NUMBER)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None

    @model_validator(mode="after")
    def _alternatives_need_logprobs(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            needs = {"param": "top_logprobs"}
            raise PydanticCustomError("needs", "{param} needs logprobs to be true", needs)
        return self

    @property
    def num_logprobs(self) -> int | None:
        """Alternatives to report with each token's own log probability; None: report nothing."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def wanted_tokens(self) -> int | None:
        """None: as many as fit."""
        return self.max_completion_tokens or self.max_tokens


def _single_prompt(value: object) -> object:
    """A list of one prompt is that prompt; more than one is not served."""
    if isinstance(value, list) and value and isinstance(value[0], str | list):
        if len(value) > 1:
            raise ValueError("one prompt a request")
        return value[0]
    return value


Alternatives = Annotated[
    Annotated[int, Field(ge=0, le=MAX_LOGPROBS, strict=True)] | None,
    BeforeValidator(lambda value: None if value is False else value),
]


class CompletionRequest(GenerationRequest):
    prompt: Annotated[Text | TokenIds, BeforeValidator(_single_prompt)]
    add_special_tokens: bool = True
    logprobs: Alternatives = None
    top_logprobs: Literal[0] | None = None  # chat's name

    @property
    def num_logprobs(self) -> int | None:
        """As in ChatRequest."""
        return self.logprobs

    @property
    def wanted_tokens(self) -> int | None:
        """OpenAI's default for text completions is 16."""
        return self.max_tokens or 16


class TokenizeRequest(Closed):
    """Either `prompt` or `messages`."""

    model: ShortText | None = None
    prompt: Text | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)] | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=MAX_TOOLS)] | None = None
    add_special_tokens: bool = True

    @model_validator(mode="after")
    def _one_of_both(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        return self


class DetokenizeRequest(Closed):
    model: ShortText | None = None
    tokens: Annotated[list[TokenId], Field(max_length=MAX_NUMBER, fail_fast=True)]
