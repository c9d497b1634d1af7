"""What a log's rows hold that no count covers: each kind once, with its number of rows and first place.

One mechanism for every format. A row type names the fields that it reads (its own), and in NO_TEXT
those that hold no prompt text: ids, sampling options, answers. Any other field that holds text is
named, because nobody knows whether that text was in the prompt. A row type with LOOK_INSIDE has its
messages, parts and tools looked through in the same way, down to the types that they are read as. Images and other parts that a text
tokenizer cannot count are named with their number, and so is text that the log only refers to.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, get_args

import msgspec
from msgspec.structs import fields

from loadkit.core.chats import part_text
from loadkit.traces.lines import Place

# Fields that rows of many services have beside the body: who, when, where, which; never the prompt.
METADATA = frozenset(
    [
        "id",
        "uid",
        "uuid",
        "key",
        "object",
        "type",
        "kind",
        "event",
        "method",
        "url",
        "path",
        "endpoint",
        "route",
        "host",
        "status",
        "status_code",
        "time",
        "date",
        "created",
        "created_at",
        "timestamp",
        "ts",
        "start",
        "end",
        "duration",
        "latency",
        "latency_s",
        "latency_ms",
        "ttft",
        "model",
        "model_name",
        "deployment",
        "engine",
        "provider",
        "region",
        "api_version",
        "version",
        "user",
        "user_id",
        "tenant",
        "team",
        "session",
        "session_id",
        "conversation_id",
        "thread_id",
        "request_id",
        "trace_id",
        "span_id",
        "parent_id",
        "custom_id",
        "tags",
        "labels",
        "category",
        "cluster",
        "language",
        "dataset",
        "source",
        "split",
        "level",
        "env",
        "environment",
        "headers",
        "usage",
        "cost",
        "error",
        "finish_reason",
        "stop_reason",
    ]
)
# Options that OpenAI's API, vLLM and SGLang take and that change no token of the prompt.
SAMPLING = frozenset(
    [
        "allowed_token_ids",
        "audio",
        "bad_words",
        "best_of",
        "bootstrap_host",
        "bootstrap_port",
        "bootstrap_room",
        "custom_logit_processor",
        "custom_params",
        "data_parallel_rank",
        "detokenize",
        "ebnf",
        "echo",
        "extra_headers",
        "extra_query",
        "frequency_penalty",
        "guided_choice",
        "guided_decoding_backend",
        "guided_grammar",
        "guided_json",
        "guided_regex",
        "guided_whitespace_pattern",
        "ignore_eos",
        "include_reasoning",
        "include_stop_str_in_output",
        "json_schema",
        "kv_transfer_params",
        "length_penalty",
        "logit_bias",
        "logits_processors",
        "logprobs",
        "lora_path",
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens",
        "max_tokens_to_sample",
        "metadata",
        "min_p",
        "min_tokens",
        "modalities",
        "moderation",
        "n",
        "no_stop_trim",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "priority",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "prompt_logprobs",
        "reasoning_effort",
        "regex",
        "repetition_detection",
        "repetition_penalty",
        "response_format",
        "return_hidden_states",
        "return_routed_experts",
        "return_token_ids",
        "return_tokens_as_token_ids",
        "rid",
        "safety_identifier",
        "seed",
        "separate_reasoning",
        "service_tier",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "stop",
        "stop_regex",
        "stop_sequences",
        "stop_token_ids",
        "store",
        "stream",
        "stream_options",
        "stream_reasoning",
        "structural_tag",
        "structured_outputs",
        "temperature",
        "timeout",
        "tool_choice",
        "tool_stream",
        "top_k",
        "top_logprobs",
        "top_p",
        "truncate_prompt_tokens",
        "use_beam_search",
        "verbosity",
        "vllm_xargs",
        "web_search_options",
    ]
)
# These change the prompt unless they hold this: a switch of the template, more text, another ending.
_CHANGES_PROMPT: dict[str, Any] = {
    "chat_template_kwargs": {},
    "chat_template": "",
    "documents": [],
    "add_generation_prompt": True,
    "continue_final_message": False,
    "suffix": "",
}
_MESSAGE = frozenset(
    [
        "role",
        "content",
        "name",
        "tool_calls",
        "tool_call_id",
        "reasoning_content",
        "reasoning",
        "id",
        "type",
        "object",
        "status",
        "created",
        "created_at",
        "timestamp",
        "date",
        "index",
        "annotations",
        "cache_control",
        "weight",
        "finish_reason",
        "stop_reason",
        "logprobs",
        "model",
        "usage",
        "metadata",
    ]
)
_ROLES = frozenset(("system", "developer", "user", "assistant", "tool"))
_PARTS = {
    "image": "images",
    "image_url": "images",
    "input_image": "images",
    "image_embeds": "images",
    "image_pil": "images",
    "file": "documents",
    "input_file": "documents",
    "document": "documents",
    "input_audio": "audio clips",
    "audio": "audio clips",
    "audio_url": "audio clips",
    "video": "videos",
    "video_url": "videos",
}
# Inside messages, parts, calls and tools: which, whose, how to cache or show; never the prompt.
_INNER = frozenset(
    [
        "allowed_callers",
        "allowed_domains",
        "annotations",
        "behavior",
        "blocked_domains",
        "cache_control",
        "caller",
        "citations",
        "created",
        "created_at",
        "defer_loading",
        "detail",
        "id",
        "index",
        "logprobs",
        "object",
        "partMetadata",
        "part_metadata",
        "phase",
        "role",
        "signature",
        "status",
        "thoughtSignature",
        "thought_signature",
        "type",
        "user_location",
        "videoMetadata",
        "video_metadata",
    ]
)
_PLURAL = re.compile(r"(?<=\w)s\b")
_NAMES_ONLY = frozenset(("id", "type", "object"))
_Raw = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Seen:
    """How often and in how many rows a kind was seen, and where first."""

    def __init__(self, place: Place):
        self.first = self._last = place
        self.rows, self.count = 1, 0

    def add(self, place: Place, count: int) -> None:
        self.rows += place != self._last
        self._last = place
        self.count += count

    @property
    def in_rows(self) -> str:
        rows = f"{self.rows:,} row{'s' if self.rows > 1 else ''}"
        return f"{rows} {'are' if self.count > 1 else 'is'}"

    @property
    def where(self) -> str:
        return f"{self.rows:,} row{'s' if self.rows > 1 else ''}, first {self.first}"


class Gaps:
    """Collects what is not counted while a log is read; `warnings` says it once all is read."""

    def __init__(self) -> None:
        self._fields: dict[str, _Seen] = {}
        self._beside_ids: dict[str, _Seen] = {}
        self._parts: dict[str, _Seen] = {}
        self._missing: dict[str, _Seen] = {}
        self._unwritten: dict[str, _Seen] = {}

    def field(self, place: Place, name: str, *, of_ids: bool = False) -> None:
        """A field holds text, or changes the prompt, and no reader understands it. of_ids: the row
        gives its prompt as ids with their length."""
        _add(self._beside_ids if of_ids else self._fields, name, place)

    def parts(self, place: Place, what: str, count: int = 1) -> None:
        """Parts of the prompt that cannot be counted; `what` names them in the plural."""
        _add(self._parts, what, place, count)

    def missing(self, place: Place, what: str) -> None:
        """Prompt text that the row refers to and the log does not hold."""
        _add(self._missing, what, place)

    def written(
        self, place: Place, messages: Sequence[Any], tools: Sequence[Any], prompt: str
    ) -> None:
        """Name what of a chat request is not in the `prompt` that the template wrote: tools, calls,
        and messages of unusual roles, which templates leave out without a word."""
        said = [one for one in messages if isinstance(one, Mapping)]
        calls = [call for one in said for call in _list(one.get("tool_calls"))]
        for what, functions in (("tools", tools), ("tool calls", calls)):
            names = [_function_name(one) for one in functions]
            if any(name and name not in prompt for name in names):
                _add(self._unwritten, what, place)
        for one in said:
            role, text = one.get("role"), one.get("content")
            unusual = isinstance(role, str) and role not in _ROLES
            if unusual and isinstance(text, str) and text.strip() not in prompt:
                _add(self._unwritten, f"messages of the role `{str(role)[:40]}`", place)

    def fields_of(self, place: Place, row_type: Any, row: Mapping[str, Any]) -> list[str]:
        """Name the row's fields that `row_type` does not know; those of them that hold text."""
        unknown = [key for key in row if key not in known_fields(row_type)]
        told = [key for key in unknown if _may_be_prompt(key, row[key])]
        for key in told:
            self.field(place, key, of_ids=getattr(row_type, "OF_IDS", False))
        if getattr(row_type, "LOOK_INSIDE", False):
            for key, inner in _inner_types(row_type).items():
                if key in row and key != "response":  # a reply is no part of its own prompt
                    self._inside(place, key, inner, _decoded(row[key]))
        return told

    def _inside(self, place: Place, path: str, kind: Any, value: Any) -> None:
        """Name the fields of an object, or of those in a list, that `kind` does not know."""
        if isinstance(value, list):
            for one in value:
                self._inside(place, f"{path}[]" if path[-2:] != "[]" else path, kind, one)
        if not isinstance(value, Mapping):
            return
        own, inner = {field.encode_name for field in fields(kind)}, _inner_types(kind)
        for key in inner.keys() & value.keys():
            self._inside(place, f"{path}.{key}", inner[key], value[key])
        for key in unknown_inside(value, own):
            self.field(place, f"{path}.{key}")

    def messages(self, place: Place, messages: Sequence[Mapping[str, Any]]) -> None:
        """Name what chat messages hold beside text: parts, fields and roles."""
        for message in messages:
            for key in message.keys() - _MESSAGE:
                if holds_text(message[key]):
                    self.field(place, f"messages[].{key}")
            content = message.get("content")
            if isinstance(content, Mapping) and holds_text(content):
                self.field(place, "messages[].content")
            for part in _list(content):
                if part_text(part) is None:
                    self.parts(place, _noun(part))
                elif isinstance(part, Mapping):
                    for key in unknown_inside(part, ("text",)):
                        self.field(place, f"messages[].content[].{key}")

    def warnings(self) -> list[str]:
        """A sentence for each kind."""
        fields = (
            f"field `{name}` ({seen.where}) is not understood; if it holds prompt text, the counts "
            "are too low"
            for name, seen in self._fields.items()
        )
        beside_ids = (
            f"field `{name}` ({seen.where}) is not understood: prompts are read from their ids and "
            "lengths alone"
            for name, seen in self._beside_ids.items()
        )
        parts = (
            f"{_counted(seen.count, what)} in {seen.in_rows} not counted, first {seen.first}: a text "
            "tokenizer cannot count them, so prompts are longer than said here"
            for what, seen in self._parts.items()
        )
        missing = (
            f"{what} ({seen.where}) is not in the log: prompts are longer than said here"
            for what, seen in self._missing.items()
        )
        unwritten = (
            f"{what} ({seen.where}) are left out by the tokenizer's chat template: if the served one "
            "writes them, prompts are longer than said here"
            for what, seen in self._unwritten.items()
        )
        return [*fields, *beside_ids, *parts, *missing, *unwritten]


def raw_fields(line: bytes) -> Mapping[str, Any]:
    """The top-level fields of a JSON object, undecoded; none where it cannot be read so."""
    try:
        return _Raw.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


@cache
def known_fields(row_type: Any) -> frozenset[str]:
    """The names of a row type's own fields, and of those that it says hold no prompt text."""
    own = frozenset(field.encode_name for field in fields(row_type))
    quiet: frozenset[str] = getattr(row_type, "NO_TEXT", frozenset())
    return own | quiet | METADATA


@cache
def _inner_types(kind: Any) -> dict[str, Any]:
    """The fields of a type that are read as another one, or a list of it, and that one."""
    found = {}
    for field in fields(kind):
        waiting = [field.type]
        while waiting:
            one = waiting.pop()
            waiting += get_args(one)
            if isinstance(one, type) and issubclass(one, msgspec.Struct):
                found[field.encode_name] = one
    return found


def _decoded(value: Any) -> Any:
    if not isinstance(value, msgspec.Raw):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # its own reader says what is wrong with it


def unknown_inside(value: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """Fields of a message, a part, a call or a tool that hold text, and are neither `known` nor any
    of those that never hold prompt text."""
    return [k for k in value if k not in known and k not in _INNER and holds_text(value[k])]


def holds_text(value: Any) -> bool:
    """Whether there is a text that is not empty in a JSON value; names of types and ids are none."""
    if isinstance(value, msgspec.Raw):
        return _raw_holds_text(bytes(value).lstrip())
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and value:
            return True
        if isinstance(value, Mapping):
            waiting += [inner for key, inner in value.items() if key not in _NAMES_ONLY]
        elif isinstance(value, list | tuple):
            waiting += value
    return False


def _may_be_prompt(key: str, value: Any) -> bool:
    if key not in _CHANGES_PROMPT:
        return holds_text(value)
    try:
        plain = msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True
    return plain is not None and plain != _CHANGES_PROMPT[key]


def _raw_holds_text(data: bytes) -> bool:
    if data[:1] == b'"':
        return data != b'""'
    if data[:1] not in (b"{", b"["):
        return False
    try:
        return holds_text(msgspec.json.decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True


def _counted(count: int, plural: str) -> str:
    """`2 images of a kind`, `1 image of a kind`: the first word in s is the noun."""
    return f"{count:,} {_PLURAL.sub('', plural, count=1) if count == 1 else plural}"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _function_name(one: Any) -> str:
    """The name of a tool or of a call's function, however it is nested; empty if it has none."""
    inner = one.get("function", one) if isinstance(one, Mapping) else None
    name = inner.get("name") if isinstance(inner, Mapping) else None
    return name if isinstance(name, str) else ""


def _noun(part: Any) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    known = _PARTS.get(kind) if isinstance(kind, str) else None
    return known or f"content parts of type `{str(kind)[:40]}`"


def _add(kinds: dict[str, _Seen], name: str, place: Place, count: int = 1) -> None:
    if name not in kinds:
        kinds[name] = _Seen(place)
    kinds[name].add(place, count)
