"""The reference server as a process, over HTTP, with a tiny random model."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import LOADKIT, serving
from tiny_model import CONTEXT, write_tiny_model
from waiting import until

from loadkit.core.tokenizer import Tokenizer, load_tokenizer
from reference_server.api import PUBLIC, ROUTES

pytestmark = pytest.mark.e2e
KEY = "a-canary-key"
LIMITS = ("--max-num-seqs", "2", "--max-queue-requests", "1", "--num-blocks", "400")
MESSAGES = [
    {"role": "system", "content": "answer the question please, hello world"},
    {"role": "user", "content": "the prefix cache keeps the keys"},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[str]:
    with serving("--model", str(model), *LIMITS, api_key=KEY) as served:
        yield served.url


@pytest.fixture
def client(server: str) -> Iterator[httpx.Client]:
    """A client with the key, on a cold cache."""
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=server, headers=headers, timeout=60) as client:
        wait_for(lambda: client.post("/reset_prefix_cache").json()["success"])
        yield client


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Tokenizer:
    return load_tokenizer(model)


def wait_for(condition: Any) -> None:
    until(condition)


def chat(client: httpx.Client, **fields: Any) -> httpx.Response:
    body = {"messages": MESSAGES, "max_tokens": 8, "temperature": 0, **fields}
    return client.post("/v1/chat/completions", json=body)


def complete(client: httpx.Client, prompt: Any, **fields: Any) -> httpx.Response:
    body = {"prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": True, **fields}
    return client.post("/v1/completions", json=body)


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """The JSON of each event; the stream must end with [DONE]."""
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def metric(client: httpx.Client, name: str, *labels: str) -> float:
    """One sample: its line starts with the name and holds every label."""
    lines = client.get("/metrics").text.splitlines()
    found = [x for x in lines if x.startswith(name + "{") and all(label in x for label in labels)]
    assert len(found) == 1, name
    return float(found[0].split()[-1])


# -- answers


def test_a_chat_answer_has_text_usage_and_the_split(
    client: httpx.Client, tokenizer: Tokenizer
) -> None:
    answer = chat(client, return_token_ids=True).json()
    prompt = tokenizer.encode_chat(MESSAGES)
    assert answer["object"] == "chat.completion"
    assert answer["prompt_token_ids"] == prompt
    choice, usage = answer["choices"][0], answer["usage"]
    assert choice["message"]["content"] == tokenizer.decode(choice["token_ids"])
    assert usage["prompt_tokens"] == len(prompt)
    assert usage["completion_tokens"] == len(choice["token_ids"])
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}
    assert usage["loadkit"] == {
        "replay": 0,
        "replay_same_session": 0,
        "replay_cross_session": 0,
        "continuation": 0,
        "shared": 0,
        "miss_capacity": 0,
        "miss_compulsory": len(prompt),
        "device": 0,
        "host": 0,
        "disk": 0,
        "kept_tail": 0,
    }


def test_a_stream_says_the_same_token_by_token(client: httpx.Client) -> None:
    whole = chat(client, return_token_ids=True).json()
    response = chat(
        client, stream=True, stream_options={"include_usage": True}, return_token_ids=True
    )
    assert response.headers["content-type"].startswith("text/event-stream")
    opening, *chunks, closing = events(response)
    assert opening["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert opening["prompt_token_ids"] == whole["prompt_token_ids"]
    choices = [chunk["choices"][0] for chunk in chunks]
    assert (
        "".join(c["delta"]["content"] for c in choices)
        == (whole["choices"][0]["message"]["content"])
    )
    assert [c["token_ids"] for c in choices] == [[i] for i in whole["choices"][0]["token_ids"]]
    reasons = [c["finish_reason"] for c in choices]
    assert reasons == [None] * (len(choices) - 1) + [whole["choices"][0]["finish_reason"]]
    assert closing["choices"] == []
    n = whole["usage"]["prompt_tokens"]
    cached = (n - 1) // 16 * 16
    assert closing["usage"]["prompt_tokens_details"]["cached_tokens"] == cached
    assert closing["usage"]["loadkit"]["replay_cross_session"] == cached


def test_usage_streams_only_when_asked_for(client: httpx.Client) -> None:
    assert all(event["choices"] for event in events(chat(client, stream=True)))


def test_token_ids_and_text_complete_alike(client: httpx.Client, tokenizer: Tokenizer) -> None:
    text = "A request whose prompt begins like an earlier one"
    by_text = complete(client, text).json()
    by_ids = complete(client, tokenizer.encode(text)).json()
    streamed = events(complete(client, text, stream=True))
    assert by_text["choices"][0]["text"] == by_ids["choices"][0]["text"]
    assert "".join(e["choices"][0]["text"] for e in streamed) == by_text["choices"][0]["text"]
    assert by_text["choices"][0]["finish_reason"] == "length"


def test_a_session_continues_and_others_share(client: httpx.Client) -> None:
    """Blocks of 16, prompt 40 + reply 9: 48 tokens are computed, 3 blocks."""
    prompt = list(range(2, 42))
    first = complete(client, prompt, max_tokens=9, return_token_ids=True, **session("a")).json()
    chain = prompt + first["choices"][0]["token_ids"]
    second = complete(client, [*chain, 5, 6], **session("a")).json()["usage"]["loadkit"]
    third = complete(client, [*chain, 7], **session("b")).json()["usage"]["loadkit"]
    assert (second["continuation"], second["shared"]) == (48, 0)
    assert (third["continuation"], third["shared"]) == (0, 48)


def session(name: str) -> dict[str, Any]:
    return {"metadata": {"session_id": name}}


def test_the_session_header_is_the_same_session_as_the_metadata(client: httpx.Client) -> None:
    prompt = list(range(2, 42))
    complete(client, prompt, **session("h"))
    body = {"prompt": prompt, "max_tokens": 1}
    again = client.post("/v1/completions", json=body, headers={"X-Session-Id": "h"}).json()
    assert again["usage"]["loadkit"]["replay_same_session"] == 32


def test_another_salt_shares_nothing(client: httpx.Client) -> None:
    prompt = list(range(2, 42))
    complete(client, prompt)
    salted = complete(client, prompt, cache_salt="tenant-2").json()
    assert salted["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


def test_a_stop_string_ends_the_text_before_it(client: httpx.Client) -> None:
    text = complete(client, [5, 6, 7], max_tokens=30).json()["choices"][0]["text"]
    stop = text[10:13]
    choice = complete(client, [5, 6, 7], max_tokens=30, stop=[stop]).json()["choices"][0]
    assert choice["text"] == text[: text.index(stop)]
    assert choice["finish_reason"] == "stop"


def test_tokenize_and_detokenize_agree_with_the_tokenizer(
    client: httpx.Client, tokenizer: Tokenizer
) -> None:
    text = client.post("/tokenize", json={"prompt": "hello wörld"}).json()
    assert text["tokens"] == tokenizer.encode("hello wörld")
    assert text["count"] == len(text["tokens"])
    talk = client.post("/tokenize", json={"messages": MESSAGES}).json()
    assert talk["tokens"] == tokenizer.encode_chat(MESSAGES)
    back = client.post("/detokenize", json={"tokens": text["tokens"]}).json()
    assert back == {"prompt": "hello wörld"}


def test_models_say_what_the_analyzer_needs(client: httpx.Client, tokenizer: Tokenizer) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    assert model["max_model_len"] == CONTEXT
    assert model["loadkit"] == {
        "block_size": 16,
        "num_blocks": 400,
        "tokenizer_fingerprint": tokenizer.fingerprint,
    }


def test_metrics_move_by_what_usage_says(client: httpx.Client) -> None:
    names = ("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total")
    causes = ("replay", "continuation", "shared", "miss_compulsory", "miss_capacity")

    def read() -> list[float]:
        by_cause = "loadkit:prefix_cache_tokens_total"
        parts = [metric(client, by_cause, f'cause="{cause}"') for cause in causes]
        return [*(metric(client, name) for name in names), *parts]

    before = read()
    prompt = list(range(2, 42))
    usages = [complete(client, prompt).json()["usage"] for _ in range(2)]
    moved = [b - a for a, b in zip(before, read(), strict=True)]
    cached = sum(u["prompt_tokens_details"]["cached_tokens"] for u in usages)
    assert moved == [80, cached, *(sum(u["loadkit"][c] for u in usages) for c in causes)]
    assert cached == 32


def test_events_come_while_the_reader_stays(client: httpx.Client) -> None:
    """A prompt of 40 ids fills two blocks of 16; both are told, the first as its parent."""
    since = client.get("/cache_stats").json()["last_event"]
    with client.stream("GET", f"/kv_events?since={since}") as stream:
        lines = (line for line in stream.iter_lines() if line.startswith(("event", "data")))
        complete(client, list(range(2, 42)), max_tokens=1)
        told = [next(lines) for _ in range(4)]
    assert told[::2] == ["event: stored"] * 2
    first, second = (json.loads(line.removeprefix("data: ")) for line in told[1::2])
    assert second["parent"] == first["block"]
    assert client.get("/cache_stats").json()["device"]["resident"] == 2


# -- refusals


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 17}, "n"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"prompt": [1, 100_000]}, "prompt"),
        ({"prompt": [1, -1]}, "prompt.1"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": ""}, "stop.0"),
        ({"min_tokens": 9}, "min_tokens"),
        ({"cache_salt": ""}, "cache_salt"),
        ({"cache_salt": "s" * 300}, "cache_salt"),
        ({"metadata": {"session_id": "s" * 300}}, "session_id"),
        ({"no_such_option": 1}, "no_such_option"),
        ({"logprobs": 21}, "logprobs"),
        ({"echo": True}, "echo"),
        ({"guided_regex": "(a+)+"}, "guided_regex"),
    ],
)
def test_what_a_request_may_not_say_is_a_400_that_names_it(
    client: httpx.Client, fields: dict[str, Any], param: str | None
) -> None:
    error = error_of(complete(client, fields.pop("prompt", "hello"), **fields), 400)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param


def test_options_that_change_nothing_are_accepted(client: httpx.Client) -> None:
    harmless = {"user": "u", "n": 1, "frequency_penalty": 0.0, "logprobs": None, "top_k": -1}
    assert complete(client, "hello", **harmless).status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"prompt": NaN}', b"[" * 5000, b"\xff\xfe"])
def test_a_body_that_is_no_json_object_is_a_400(client: httpx.Client, body: bytes) -> None:
    error_of(client.post("/v1/completions", content=body), 400)


def test_what_can_never_fit_is_a_400(client: httpx.Client) -> None:
    """The context is 4096 tokens: 4000 + 97 do not fit, 4000 + 96 do."""
    error = error_of(complete(client, [5] * 4000, max_tokens=97), 400)
    assert error["code"] == "context_length_exceeded"
    assert complete(client, [5] * 4000, max_tokens=96).status_code == 200


def test_a_body_over_the_cap_is_a_413(client: httpx.Client) -> None:
    error_of(client.post("/v1/completions", content=b" " * (17 << 20)), 413)


def test_unknown_routes_methods_and_models_have_error_objects(client: httpx.Client) -> None:
    assert error_of(client.get("/v2/models"), 404)["code"] == "not_found"
    assert error_of(client.get("/v1/completions"), 405)["code"] == "method_not_allowed"
    assert error_of(complete(client, "a", model="gpt-4"), 404)["code"] == "model_not_found"


def test_only_health_and_version_answer_without_the_key(server: str) -> None:
    routes = [(row.method, row.path) for row in ROUTES if row.who != PUBLIC]
    assert len(routes) > 10
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
        for method, path in routes:
            response = httpx.request(method, server + path, headers=headers, json={})
            assert error_of(response, 401)["code"] == "invalid_api_key"
    assert httpx.get(server + "/health").status_code == 200
    assert "version" in httpx.get(server + "/version").json()


# -- clients that leave, queues that are full


def test_a_client_that_leaves_its_stream_is_aborted(client: httpx.Client) -> None:
    before = metric(client, "vllm:request_success_total", 'finished_reason="abort"')
    body = {"prompt": [5], "max_tokens": 4000, "ignore_eos": True, "stream": True}
    with client.stream("POST", "/v1/completions", json=body) as response:
        next(response.iter_lines())
    wait_for(
        lambda: metric(client, "vllm:request_success_total", 'finished_reason="abort"') > before
    )
    assert metric(client, "vllm:num_requests_running") == 0


def test_a_client_that_leaves_before_the_answer_is_aborted(client: httpx.Client) -> None:
    before = metric(client, "vllm:request_success_total", 'finished_reason="abort"')
    body = {"prompt": [6], "max_tokens": 4000, "ignore_eos": True}
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/completions", json=body, timeout=0.3)
    wait_for(
        lambda: metric(client, "vllm:request_success_total", 'finished_reason="abort"') > before
    )


def test_a_full_queue_is_a_429_with_retry_after_and_nobody_is_lost(client: httpx.Client) -> None:
    """Two run and one may wait: of eight at once some are told to come again."""
    with ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(complete, client, [9 + i], max_tokens=150) for i in range(8)]
        responses = [future.result() for future in sent]
    refused = [r for r in responses if r.status_code == 429]
    assert refused
    assert all(int(r.headers["retry-after"]) >= 1 for r in refused)
    assert {r.status_code for r in responses} == {200, 429}
    assert error_of(refused[0], 429)["code"] == "queue_full"


def test_reset_refuses_while_a_request_runs(client: httpx.Client) -> None:
    body = {"prompt": [5], "max_tokens": 4000, "ignore_eos": True, "stream": True}
    with client.stream("POST", "/v1/completions", json=body) as response:
        lines = response.iter_lines()  # kept: httpx closes the stream with its iterator
        next(lines)
        assert client.post("/reset_prefix_cache").json() == {"success": False}


# -- the process


def test_sigterm_lets_the_running_request_end_and_exits_with_0(model: Path) -> None:
    with serving("--model", str(model)) as served:
        body = {"prompt": [5], "max_tokens": 300, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", served.url + "/v1/completions", json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            served.process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert len(rest) == 300
        assert served.process.wait(30) == 0


def test_what_outlives_the_drain_ends_with_an_error_that_says_so(model: Path) -> None:
    """4,000 tokens take longer than no time at all."""
    with serving("--model", str(model), "--drain-seconds", "0") as served:
        body = {"prompt": [5], "max_tokens": 4000, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", served.url + "/v1/completions", json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            served.process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert json.loads(rest[-2].removeprefix("data: "))["error"]["code"] == "aborted"
        assert rest[-1] == "data: [DONE]"
        assert served.process.wait(30) == 0


def test_the_server_ends_with_the_process_that_started_it(model: Path) -> None:
    """Its end of the pipe closes only when it is gone."""
    script = (
        "import subprocess, sys\n"
        "server = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)\n"
        "print(server.stdout.readline(), end='', flush=True)\n"
    )
    command = [*LOADKIT, "serve", "--port", "0", "--exit-with-parent", "--model", str(model)]
    parent = subprocess.run(
        [sys.executable, "-c", script, *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert parent.stdout.startswith("loadkit serve: ready on http://127.0.0.1:")
    assert "the parent process is gone" in parent.stderr


def run_serve(*options: str) -> subprocess.CompletedProcess[str]:
    command = [*LOADKIT, "serve", "--port", "0", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_model_that_is_not_there_is_one_line_and_exit_2(tmp_path: Path) -> None:
    done = run_serve("--model", str(tmp_path / "nothing"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "nothing") in done.stderr


def test_a_taken_port_is_one_line_and_exit_2(model: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run_serve("--model", str(model), "--port", port)
    assert done.returncode == 2
    assert "cannot listen" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_started_again_serves_from_its_disk(model: Path, tmp_path: Path) -> None:
    """A prompt of 70 ids: 4 blocks of 16 hit, all from disk, and the reply is the same."""
    options = ("--model", str(model), "--num-blocks", "40", "--disk-blocks", "50")
    options += ("--disk-file", str(tmp_path / "slab"), "--policy", "slru")
    answers = []
    for _ in range(2):
        with serving(*options) as served, httpx.Client(base_url=served.url, timeout=60) as client:
            prompt = [3 + n % 200 for n in range(70)]
            answers.append(complete(client, prompt, return_token_ids=True).json())
    first, again = answers
    assert (first["usage"]["loadkit"]["disk"], again["usage"]["loadkit"]["disk"]) == (0, 64)
    assert again["choices"][0]["token_ids"] == first["choices"][0]["token_ids"]
