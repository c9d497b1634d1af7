"""n, stop ids, logprobs and what is refused, over HTTP without a process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from engine_builders import expected_reply, make_engine, make_request
from http_calls import BODY, call, make_service

from reference_server.engine import QueueFull
from reference_server.logprobs import chat_logprobs, completion_logprobs
from reference_server.request import Request, Sample
from reference_server.service import Service
from reference_server.token_texts import TokenTexts

CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "temperature": 0}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    made = make_service()
    yield made
    assert made.engine is not None
    made.engine.stop()


def post(service: Service, path: str, **fields: Any) -> Any:
    body = (CHAT if "chat" in path else BODY) | {"return_token_ids": True} | fields
    return call(service, "POST", path, json=body)


def chunks(text: str) -> list[dict[str, Any]]:
    *events, done, end = text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(event[6:]) for event in events]


def test_choices_share_one_prompt_and_each_has_its_reply(service: Service) -> None:
    answer = post(service, "/v1/completions", n=3).json()
    reply = expected_reply([5, 6, 7], 4, 340)
    assert [c["index"] for c in answer["choices"]] == [0, 1, 2]
    assert [c["token_ids"] for c in answer["choices"]] == [reply] * 3
    usage = answer["usage"]
    counts = usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]
    assert counts == (3, 12, 15)


def test_streamed_choices_say_the_same_each_under_its_index(service: Service) -> None:
    whole = post(service, "/v1/chat/completions", n=2, seed=3).json()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *pieces, closing = chunks(post(service, "/v1/chat/completions", n=2, seed=3, **options).text)
    said: list[list[int]] = [[], []]
    roles, ends = [], []
    for piece in pieces:
        choice = piece["choices"][0]
        said[choice["index"]] += choice.get("token_ids", [])
        roles += [choice["index"]] if "role" in choice["delta"] else []
        ends += [choice["index"]] if choice["finish_reason"] else []
    assert said == [c["token_ids"] for c in whole["choices"]]
    assert (roles, sorted(ends)) == ([0, 1], [0, 1])
    assert closing["usage"]["completion_tokens"] == 10


def test_all_choices_of_a_request_are_queued_or_none() -> None:
    """Three may wait: two and two are too many, two and one are not."""
    engine = make_engine(50, max_queue_requests=3)

    def choices(num: int) -> list[Request]:
        leader = make_request(engine, [1, 2])
        return [leader, *(leader.another_choice(i) for i in range(1, num))]

    engine.submit(*choices(2))
    with pytest.raises(QueueFull):
        engine.submit(*choices(2))
    assert engine.num_waiting == 2
    engine.submit(*choices(1))


def test_a_stop_id_ends_the_reply_and_has_no_text(service: Service) -> None:
    reply = expected_reply([5, 6, 7], 4, 340)
    whole = post(service, "/v1/completions").json()["choices"][0]
    cut = post(service, "/v1/completions", stop_token_ids=[reply[2]]).json()["choices"][0]
    assert cut["token_ids"] == reply[:3]
    assert cut["finish_reason"] == "stop"
    assert whole["text"].startswith(cut["text"])


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/completions", {"n": 17}, "n"),
        ("/v1/completions", {"n": 1000}, "n"),
        ("/v1/completions", {"n": 0}, "n"),
        ("/v1/completions", {"max_tokens": 10**9}, "max_tokens"),
        ("/v1/completions", {"top_k": -2}, "top_k"),
        ("/v1/completions", {"logprobs": 21}, "logprobs"),
        ("/v1/completions", {"logprobs": True}, "logprobs"),
        ("/v1/completions", {"stop_token_ids": [340]}, "stop_token_ids"),
        ("/v1/completions", {"stop_token_ids": [3] * 65}, "stop_token_ids"),
        ("/v1/completions", {"stop": ["x"] * 100_000}, "stop"),
        ("/v1/completions", {"echo": True}, "echo"),
        ("/v1/completions", {"best_of": 2}, "best_of"),
        ("/v1/completions", {"max_completion_tokens": 5}, "max_completion_tokens"),
        ("/v1/chat/completions", {"top_logprobs": 5}, "top_logprobs"),
        ("/v1/chat/completions", {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ("/v1/chat/completions", {"logprobs": 3}, "logprobs"),
        ("/v1/chat/completions", {"tool_choice": "required"}, "tool_choice"),
        ("/v1/chat/completions", {"response_format": {"type": "json_object"}}, "response_format"),
        ("/v1/chat/completions", {"chat_template": "{{ 1 }}"}, "chat_template"),
        ("/v1/chat/completions", {"messages": [{"role": "god", "content": ""}]}, "messages.0.role"),
    ],
)
def test_what_is_not_served_is_a_400_that_names_it(
    service: Service, path: str, fields: dict[str, Any], param: str
) -> None:
    answer = post(service, path, **fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert error["message"].startswith(param)


def test_echo_is_refused_with_what_to_use_instead(service: Service) -> None:
    message = post(service, "/v1/completions", echo=True).json()["error"]["message"]
    assert "return_token_ids" in message


def test_both_names_for_the_most_tokens_and_what_means_off_are_taken(service: Service) -> None:
    taken = post(service, "/v1/chat/completions", max_completion_tokens=2, max_tokens=None).json()
    assert taken["usage"]["completion_tokens"] == 2
    off = {"echo": False, "logprobs": False, "top_logprobs": None, "top_k": -1, "best_of": 1}
    assert post(service, "/v1/completions", **off).status_code == 200


def test_logprobs_have_the_shapes_of_both_routes(service: Service) -> None:
    """'h' and 'e' are letters of the byte-level alphabet: their ids have one byte."""
    tokenizer = service.tokenizer
    assert tokenizer is not None
    h, e = (tokenizer.hf.convert_tokens_to_ids(letter) for letter in "he")
    samples = [Sample(h, -0.5, ((e, -0.25), (h, -0.5))), Sample(e, float("-inf"))]
    texts = TokenTexts(tokenizer)
    first, second = chat_logprobs(samples, texts)["content"]
    own = {"token": "h", "logprob": -0.5, "bytes": [104]}
    other = {"token": "e", "logprob": -0.25, "bytes": [101]}
    assert first == own | {"top_logprobs": [other, own]}
    assert second == {"token": "e", "logprob": -9999.0, "bytes": [101], "top_logprobs": []}
    assert completion_logprobs(samples, [0, 1], texts) == {
        "tokens": ["h", "e"],
        "token_logprobs": [-0.5, -9999.0],
        "top_logprobs": [{"e": -0.25, "h": -0.5}, {"e": -9999.0}],
        "text_offset": [0, 1],
    }


def test_bytes_of_tokens_join_to_the_utf8_of_any_text(service: Service) -> None:
    assert service.tokenizer is not None
    texts = TokenTexts(service.tokenizer)
    for text in ("hello world", "naïve 🙂 日本\n\t\x00\xad"):
        ids = service.tokenizer.encode(text)
        assert b"".join(bytes(texts.of(i)[1]) for i in ids) == text.encode()
