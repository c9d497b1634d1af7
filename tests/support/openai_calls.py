"""What the official `openai` client can ask for, tried against a server: a table of what it answers.

python tests/support/openai_calls.py URL MODEL [KEY]     prints the table of docs/server.md
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

import openai
from openai.resources.chat.completions import Completions as Chat
from openai.resources.completions import Completions as Text

from reference_server.schema import IGNORED

# Of the client itself: they are not in the request's body, or are what every request has.
OF_THE_CLIENT = {"self", "extra_headers", "extra_query", "extra_body", "timeout", "model", "stream"}
FUNCTION = {"name": "weather_now", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": FUNCTION}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
# Values of each parameter; a new one of the client's has to be added.
BOTH: dict[str, list[Any]] = {
    "frequency_penalty": [0, 0.5],
    "max_tokens": [2],
    "n": [2],
    "presence_penalty": [0, 0.5],
    "seed": [7],
    "stop": ["x"],
    "stream_options": [{"include_usage": True}, {"include_obfuscation": False}],
    "temperature": [0.5],
    "top_p": [0.5],
    "user": ["me"],
}
OF_CHAT: dict[str, list[Any]] = BOTH | {
    "messages": ["hello", [{"type": "text", "text": "hello"}], [IMAGE]],
    "audio": [{"voice": "alloy", "format": "wav"}],
    "function_call": ["none"],
    "functions": [[FUNCTION]],
    "logit_bias": [{}, {"5": 1}],
    "logprobs": [True],
    "max_completion_tokens": [2],
    "metadata": [{"session_id": "s"}],
    "modalities": [["text"], ["text", "audio"]],
    "moderation": [{"model": "omni-moderation-latest"}],
    "parallel_tool_calls": [True],
    "prediction": [{"type": "content", "content": "hello"}],
    "prompt_cache_key": ["a"],
    "prompt_cache_options": [{"mode": "auto"}],
    "prompt_cache_retention": ["24h"],
    "reasoning_effort": ["low"],
    "response_format": [{"type": "text"}, {"type": "json_object"}, SCHEMA],
    "safety_identifier": ["a"],
    "service_tier": ["auto"],
    "store": [False],
    "tool_choice": ["auto", "none", "required"],
    "tools": [[TOOL]],
    "top_logprobs": [2],
    "verbosity": ["low"],
    "web_search_options": [{}],
}
OF_TEXT: dict[str, list[Any]] = BOTH | {
    "prompt": ["hello", [5, 6], [[5, 6]], ["a", "b"]],
    "best_of": [1, 2],
    "echo": [False, True],
    "logit_bias": [{}, {"5": 1}],
    "logprobs": [2],
    "suffix": ["", "x"],
}
# Other calls of the client, and what they are asked with.
OTHERS: dict[str, Any] = {
    "models.list()": lambda client, model: client.models.list(),
    "models.retrieve(model)": lambda client, model: client.models.retrieve(model),
    "models.delete(model)": lambda client, model: client.models.delete(model),
    "chat.completions.list()": lambda client, model: client.chat.completions.list(),
    "responses.create(...)": lambda client, model: client.responses.create(model=model, input="x"),
    "embeddings.create(...)": lambda client, model: client.embeddings.create(
        model=model, input="x", encoding_format="float"
    ),
    "moderations.create(...)": lambda client, model: client.moderations.create(input="x"),
    "files.list()": lambda client, model: client.files.list(),
    "batches.list()": lambda client, model: client.batches.list(),
}


def unknown_parameters() -> set[str]:
    """Parameters of this version of the client that no value is known for."""
    asked = {*inspect.signature(Chat.create).parameters} - {*OF_CHAT}
    texts = {*inspect.signature(Text.create).parameters} - {*OF_TEXT}
    return (asked | texts) - OF_THE_CLIENT


def table(client: openai.OpenAI, model: str) -> list[str]:
    """The rows of the table, in the order of their names. A server that is busy with the stream that
    was closed just before says 429 and when to come again: that is no answer to the parameter."""
    client = client.with_options(max_retries=8)
    rows = ["| call | parameter | served | ignored | refused |", "|---|---|---|---|---|"]
    for name, values in sorted(OF_CHAT.items()):
        rows.append(_row("chat", name, [(v, _asks_chat(client, model, name, v)) for v in values]))
    for name, values in sorted(OF_TEXT.items()):
        rows.append(_row("text", name, [(v, _asks_text(client, model, name, v)) for v in values]))
    for name, ask in OTHERS.items():
        status = _status(lambda ask=ask: ask(client, model))  # type: ignore[misc]
        rows.append(f"| `{name}` | | {'yes' if status == 200 else ''} | | {_refusal(status)} |")
    return rows


def _asks_chat(client: openai.OpenAI, model: str, name: str, value: Any) -> int:
    said = value if name == "messages" else "hello"
    asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": said}]}
    if name != "messages":
        asked[name] = value
    if name not in ("max_tokens", "max_completion_tokens"):
        asked["max_completion_tokens"] = 2
    asked |= {"tools": [TOOL]} if name == "tool_choice" else {}
    asked |= {"logprobs": True} if name == "top_logprobs" else {}
    asked |= {"stream": True} if name == "stream_options" else {}
    return _status(lambda: client.chat.completions.create(**asked))


def _asks_text(client: openai.OpenAI, model: str, name: str, value: Any) -> int:
    asked: dict[str, Any] = {"model": model, "prompt": "hello", "max_tokens": 2} | {name: value}
    asked |= {"stream": True} if name == "stream_options" else {}
    return _status(lambda: client.completions.create(**asked))


def _status(ask: Any) -> int:
    try:
        answer = ask()
        if hasattr(answer, "close"):
            answer.close()
    except openai.APIStatusError as error:
        return error.status_code
    return 200


def _row(call: str, name: str, found: list[tuple[Any, int]]) -> str:
    """`all` where every value was answered alike."""
    served = [value for value, status in found if status == 200]
    refused = [(value, status) for value, status in found if status != 200]
    taken = "all" if len(served) == len(found) else _shown(served)
    places = ("", taken) if name in IGNORED else (taken, "")
    statuses = " ".join(sorted({_refusal(status) for _, status in refused}))
    which = "" if not served else _shown([value for value, _ in refused])
    last = f"{which} {statuses}".strip()
    return f"| {call} | `{name}` | {places[0]} | {places[1]} | {last} |"


def _refusal(status: int) -> str:
    return "" if status == 200 else str(status)


def _shown(values: list[Any]) -> str:
    return ", ".join(f"`{_short(value)}`" for value in values)


def _short(value: Any) -> str:
    if isinstance(value, dict) and "type" in value:
        return str(value["type"])
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"[{value[0]['type']}]"
    return repr(value).replace("'", '"')


if __name__ == "__main__":
    url, model, *key = sys.argv[1:]
    print("\n".join(table(openai.OpenAI(base_url=f"{url}/v1", api_key=(key or ["-"])[0]), model)))
