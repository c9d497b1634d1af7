"""What HTTP says while the server loads, drains, fails or is dead; no process and no torch model."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from engine_builders import CheckingRunner
from tiny_model import make_tokenizer

from loadkit.core.tokenizer import Tokenizer
from reference_server.api import PUBLIC, ROUTES, make_app, make_routes
from reference_server.engine import Engine, EngineSettings
from reference_server.keys import Keys
from reference_server.service import DRAINING, Service

BODY = {"prompt": [5, 6, 7], "max_tokens": 4, "temperature": 0}


@pytest.fixture
def service() -> Iterator[Service]:
    engine = Engine(CheckingRunner(4, vocabulary=340), EngineSettings(block_size=4, num_blocks=50))
    engine.start()
    service = Service("tiny")
    service.install(engine, Tokenizer(make_tokenizer(), "tiny"), frozenset({1}))
    yield service
    engine.stop()


def call(service: Service, method: str, path: str, **options: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(make_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **options)

    return asyncio.run(ask())


def test_every_route_stands_in_the_table(service: Service) -> None:
    paths = {route.path for route in make_routes(service).routes}  # type: ignore[attr-defined]
    assert paths == {row.path for row in ROUTES}


def test_a_model_is_told_of_by_its_name(service: Service) -> None:
    (card,) = call(service, "GET", "/v1/models").json()["data"]
    assert call(service, "GET", f"/v1/models/{card['id']}").json() == card
    other = call(service, "GET", "/v1/models/owner/gpt-4")
    assert (other.status_code, other.json()["error"]["code"]) == (404, "model_not_found")
    service.model_name = "owner/tiny"
    for name in ("owner/tiny", "owner%2Ftiny"):
        assert call(service, "GET", f"/v1/models/{name}").json()["id"] == "owner/tiny"


def test_a_key_guards_every_route_that_the_table_says(service: Service) -> None:
    service.keys = Keys(("k",))
    for row in ROUTES:
        response = call(service, row.method, row.path, json=BODY)
        assert (response.status_code == 401) == (row.who != PUBLIC)


def test_while_loading_everything_is_503_with_retry_after() -> None:
    loading = Service("tiny")
    for method, path in (("GET", "/health"), ("POST", "/v1/completions"), ("GET", "/v1/models")):
        assert call(loading, method, path, json=BODY).status_code == 503
    refused = call(loading, "POST", "/v1/completions", json=BODY)
    assert refused.json()["error"]["code"] == "loading"
    assert refused.headers["retry-after"] == "5"


def test_while_draining_new_requests_are_503(service: Service) -> None:
    service.status = DRAINING
    response = call(service, "POST", "/v1/completions", json=BODY)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "draining")
    assert call(service, "GET", "/health").status_code == 503


def test_a_dead_engine_is_503_everywhere(service: Service) -> None:
    engine = service.engine
    assert engine is not None
    engine.runner.broken = True  # type: ignore[attr-defined]
    first = call(service, "POST", "/v1/completions", json=BODY)
    engine.join()
    assert first.status_code == 500
    assert call(service, "GET", "/health").json() == {"status": "engine_dead"}
    for path in ("/v1/completions", "/reset_prefix_cache"):
        assert call(service, "POST", path, json=BODY).status_code == 503


class _OneBad(CheckingRunner):
    """Fails for prompts that begin with token 9."""

    def execute(self, chunks: Any) -> list[int | None]:
        if any(chunk.request.tokens[0] == 9 for chunk in chunks):
            raise ValueError("token 9")
        return super().execute(chunks)


@pytest.mark.parametrize("stream", [False, True])
def test_one_bad_request_fails_alone(stream: bool) -> None:
    engine = Engine(_OneBad(4, 340), EngineSettings(block_size=4, num_blocks=50))
    engine.start()
    service = Service("tiny")
    service.install(engine, Tokenizer(make_tokenizer(), "tiny"), frozenset())
    bad = call(service, "POST", "/v1/completions", json=BODY | {"prompt": [9], "stream": stream})
    good = call(service, "POST", "/v1/completions", json=BODY)
    engine.stop()
    if stream:
        assert '"code":"engine_error"' in bad.text
        assert bad.text.endswith("data: [DONE]\n\n")
    else:
        assert (bad.status_code, bad.json()["error"]["code"]) == (500, "engine_error")
    assert good.status_code == 200


def test_two_keys_never_share_a_block_or_a_session(service: Service) -> None:
    def cached(key: str, **fields: Any) -> int:
        service.keys = Keys((key,))
        headers = {"Authorization": f"Bearer {key}", "x-session-id": "s"}
        body = BODY | {"prompt": list(range(2, 22))} | fields
        answer = call(service, "POST", "/v1/completions", json=body, headers=headers).json()
        return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])

    assert [cached(key) for key in ("a", "b", "a")] == [0, 0, 16]
    assert [cached(key, cache_salt="public") for key in ("a", "b")] == [0, 16]


def test_no_salt_that_a_caller_can_work_out_reaches_a_tenants_blocks(service: Service) -> None:
    service.keys = Keys(("k",))
    headers = {"Authorization": "Bearer k"}
    body = BODY | {"prompt": list(range(2, 22))}
    guesses = ["k", f"tenant {service.tenant('k')}", service.tenant("k")]
    guesses += [hashlib.blake2b(b"k", digest_size=16).hexdigest(), hashlib.sha256(b"k").hexdigest()]
    call(service, "POST", "/v1/completions", json=body, headers=headers)
    for salt in guesses:
        guess = body | {"cache_salt": salt}
        answer = call(service, "POST", "/v1/completions", json=guess, headers=headers).json()
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


def test_the_same_key_is_another_tenant_in_another_process() -> None:
    keys = Keys(("k",))
    one, other = Service("tiny", keys), Service("tiny", keys)
    assert one.tenant("k") == Service("tiny", keys, one.secret).tenant("k") != other.tenant("k")
    assert "'k'" not in repr(one)


def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenised(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = max(map(len, make_tokenizer().get_vocab()))
    monkeypatch.setattr(Tokenizer, "encode", lambda *_, **__: pytest.fail("tokenised"))
    for path, body in (
        ("/v1/completions", BODY | {"prompt": "x" * (10_000 * longest + 1)}),
        ("/tokenize", {"prompt": "x" * (10_000 * longest + 1)}),
    ):
        response = call(service, "POST", path, json=body)
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "context_length_exceeded"


def test_a_page_of_another_site_is_kept_out_until_there_is_a_key(service: Service) -> None:
    headers = {"Origin": "http://evil.example", "Authorization": "Bearer k"}
    body = {"json": BODY, "headers": headers}
    assert call(service, "POST", "/v1/completions", **body).status_code == 403
    service.keys = Keys(("k",))
    assert call(service, "POST", "/v1/completions", **body).status_code == 200
