"""The official OpenAI client, unchanged, against the server as a process."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai_calls import table, unknown_parameters
from served import serving
from tiny_model import make_model, make_tokenizer

from loadkit.core.tokenizer import Tokenizer, load_tokenizer

pytestmark = pytest.mark.e2e
KEY = "a-key"
LIMITS = ("--max-num-seqs", "2", "--max-queue-requests", "1", "--served-model-name", "tiny")
TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] or '' }}"
    "{% if m['tool_calls'] %}{{ m['tool_calls'] | tojson }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "the prefix cache keeps the keys"}],
    "max_completion_tokens": 8,
    "temperature": 0,
}
TOOL = {
    "type": "function",
    "function": {"name": "weather_now", "parameters": {"type": "object", "properties": {}}},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    make_model(len(tokenizer)).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    with serving("--model", str(model), *LIMITS, api_key=KEY) as served:
        yield served.url


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Tokenizer:
    return load_tokenizer(model)


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


def test_chat_and_its_stream_say_the_same(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**CHAT)
    stream = client.chat.completions.create(
        **CHAT, stream=True, stream_options={"include_usage": True}
    )
    *chunks, closing = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == (
        whole.choices[0].message.content
    )
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert whole.usage
    assert closing.usage
    assert closing.usage.completion_tokens == whole.usage.completion_tokens
    assert closing.usage.prompt_tokens_details
    cached = (whole.usage.prompt_tokens - 1) // 16 * 16
    assert closing.usage.prompt_tokens_details.cached_tokens == cached


def test_text_completions_of_ids_and_of_text(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("hello world")
    prompts: list[Any] = ["hello world", ids]
    texts = [
        client.completions.create(model="tiny", prompt=prompt, max_tokens=5, temperature=0)
        for prompt in prompts
    ]
    assert texts[0].choices[0].text == texts[1].choices[0].text
    streamed = client.completions.create(
        model="tiny", prompt=ids, max_tokens=5, temperature=0, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in streamed) == texts[0].choices[0].text


def test_choices_come_back_whole_and_streamed(client: openai.OpenAI) -> None:
    wanted = {**CHAT, "n": 3, "temperature": 1.5, "seed": 7}
    whole = [c.message.content for c in client.chat.completions.create(**wanted).choices]
    said = ["", "", ""]
    for chunk in client.chat.completions.create(**wanted, stream=True):
        said[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert said == whole
    assert len(set(whole)) > 1


def test_chat_logprobs_are_the_models(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    """Greedy: each token is its own first alternative. Bytes of the tokens join to the reply."""
    answer = client.chat.completions.create(
        **CHAT, logprobs=True, top_logprobs=20, extra_body={"return_token_ids": True}
    )
    choice = answer.choices[0]
    assert choice.logprobs
    assert choice.logprobs.content
    assert choice.model_extra
    for token in choice.logprobs.content:
        assert token.logprob == token.top_logprobs[0].logprob
        assert token.token == token.top_logprobs[0].token
        assert len(token.top_logprobs) == 20
        assert 0 < sum(math.exp(top.logprob) for top in token.top_logprobs) <= 1 + 1e-6
    raw = b"".join(bytes(token.bytes or []) for token in choice.logprobs.content)
    reply = tokenizer.decode(choice.model_extra["token_ids"], skip_special_tokens=False)
    assert raw.decode(errors="replace") == reply


def test_completion_logprobs_have_the_old_shape(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="tiny", prompt="hello", max_tokens=4, temperature=0, logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs
    assert answer.usage
    num = answer.usage.completion_tokens
    assert logprobs.tokens
    assert logprobs.token_logprobs
    assert logprobs.text_offset
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) == num
    assert all(2 <= len(top) <= 3 for top in logprobs.top_logprobs or [])


def test_tools_and_calls_are_in_the_prompt(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather_now", "arguments": "{}"}}
    messages: list[Any] = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "it rains cats"},
    ]
    wanted = {**CHAT, "messages": messages}
    tools: Any = [TOOL]
    answer = client.chat.completions.create(
        **wanted, tools=tools, tool_choice="auto", extra_body={"return_token_ids": True}
    )
    assert answer.model_extra
    prompt = tokenizer.decode(answer.model_extra["prompt_token_ids"], skip_special_tokens=False)
    assert prompt.count("weather_now") == 2
    assert "it rains cats" in prompt
    without = client.chat.completions.create(**wanted)
    assert answer.usage
    assert without.usage
    assert answer.usage.prompt_tokens > without.usage.prompt_tokens


def test_the_model_is_listed_and_told_of_by_its_name(client: openai.OpenAI) -> None:
    (listed,) = client.models.list()
    assert listed.id == "tiny"
    assert client.models.retrieve("tiny") == listed
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("owner/gpt-4")


def test_what_the_client_asks_for_is_answered_as_the_document_says(client: openai.OpenAI) -> None:
    """Every parameter of the client's two calls, tried; `openai_calls.py` prints the table anew."""
    assert unknown_parameters() == set(), "give a value in openai_calls.py"
    text = (Path(__file__).parents[2] / "docs/server.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith(("| chat |", "| text |", "| `"))]
    found = table(client, "tiny")[2:]
    assert [row for row in found if row not in rows] == []
    asked = {row for row in rows if row.startswith(("| chat |", "| text |"))}
    assert asked - set(found) == set()


def test_errors_are_the_clients_own_classes(client: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(**CHAT, n=1000)
    assert (bad.value.param, bad.value.code) == ("n", "invalid_value")
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(**{**CHAT, "model": "gpt-4"})
    assert missing.value.code == "model_not_found"
    stranger = client.with_options(api_key="wrong")
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_a_429_is_tried_again_after_the_time_it_names(url: str) -> None:
    """Two replies run and one waits, until the first refusal ends them all."""
    long = {"prompt": [5], "max_tokens": 4000, "ignore_eos": True, "stream": True}
    headers = {"Authorization": f"Bearer {KEY}"}
    refusals: list[str] = []
    with ExitStack() as fillers, httpx.Client(base_url=url, headers=headers) as filling:

        def hook(response: Any) -> None:
            if response.status_code == 429:
                refusals.append(response.headers["retry-after"])
                fillers.pop_all().close()

        for index in range(3):
            stream = filling.stream("POST", "/v1/completions", json=long)
            lines = fillers.enter_context(stream).iter_lines()
            if index < 2:  # it runs; the third waits
                next(lines)
                fillers.callback(lambda kept: None, lines)  # httpx ends a stream with its iterator
        http: Any = openai.DefaultHttpxClient(event_hooks={"response": [hook]})
        with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, http_client=http) as client:
            answer = client.with_options(max_retries=5).chat.completions.create(**CHAT)
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert refusals
    assert set(refusals) == {"1"}


def test_without_retries_a_full_queue_is_a_rate_limit_error(
    url: str, client: openai.OpenAI
) -> None:
    long = {"prompt": [6], "max_tokens": 4000, "ignore_eos": True, "stream": True}
    headers = {"Authorization": f"Bearer {KEY}"}
    with ExitStack() as fillers, httpx.Client(base_url=url, headers=headers) as filling:
        for index in range(3):
            stream = filling.stream("POST", "/v1/completions", json=long)
            lines = fillers.enter_context(stream).iter_lines()
            if index < 2:
                next(lines)
                fillers.callback(lambda kept: None, lines)
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(**CHAT)
    assert refused.value.code == "queue_full"
