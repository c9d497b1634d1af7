"""Who may call what, and what the operator is shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_builders import expected_reply
from http_calls import BODY, as_key, ask, call, make_service

from loadkit.analysis import per_request
from loadkit.traces import read_trace
from reference_server.api import KEY, OPERATOR, PUBLIC, ROUTES
from reference_server.keys import Caller, Keys
from reference_server.service import DRAINING, Service

LONG = BODY | {"prompt": list(range(2, 22))}  # five blocks, of which four can hit
CALLS_OF_CLIENTS = {
    "/v1/models",
    "/v1/models/{model:path}",
    "/v1/chat/completions",
    "/v1/completions",
    "/tokenize",
    "/detokenize",
}


@pytest.fixture
def service() -> Iterator[Service]:
    made = make_service()
    yield made
    assert made.engine is not None
    made.engine.stop()


def test_the_table_names_all_that_a_client_may_call_and_the_rest_is_the_operators() -> None:
    assert {row.path for row in ROUTES if row.who == PUBLIC} == {"/health", "/version"}
    assert {row.path for row in ROUTES if row.who == KEY} == CALLS_OF_CLIENTS


@pytest.mark.parametrize(
    ("keys", "key", "allowed"),
    [
        (Keys(), None, {PUBLIC, KEY, OPERATOR}),
        (Keys(("a",)), None, {PUBLIC}),
        (Keys(("a",)), "b", {PUBLIC}),
        (Keys(("a",)), "a", {PUBLIC, KEY, OPERATOR}),
        (Keys(("a", "b")), "b", {PUBLIC, KEY}),
        (Keys(("a",), "boss"), "a", {PUBLIC, KEY}),
        (Keys(("a",), "boss"), "boss", {PUBLIC, KEY, OPERATOR}),
        (Keys((), "boss"), None, {PUBLIC, KEY}),
        (Keys((), "boss"), "boss", {PUBLIC, KEY, OPERATOR}),
    ],
)
def test_every_route_lets_in_whom_the_table_says(
    service: Service, keys: Keys, key: str | None, allowed: set[str]
) -> None:
    service.keys, service.status = keys, DRAINING  # whoever is let in gets 200 or 503, and no work
    headers = {} if key is None else as_key(key)
    for row in ROUTES:
        status = call(service, row.method, row.path, json={}, headers=headers).status_code
        assert (status not in (401, 403)) == (row.who in allowed), row.path


@pytest.mark.parametrize("path", ["/health", "/version"])
def test_what_is_open_to_all_is_there_to_be_read_alone(service: Service, path: str) -> None:
    service.keys = Keys(("a",))
    assert call(service, "HEAD", path).status_code == 200
    answer = call(service, "POST", path, content=b"x" * 1000)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert service.metrics.total("loadkit:refused_requests", status="other") == 1


def test_a_client_is_refused_the_operators_routes_with_another_word_than_a_stranger() -> None:
    keys = Keys(("a", "b"))
    assert keys.caller("Bearer a") == Caller("a")
    assert keys.caller("Bearer ") is keys.caller("") is keys.caller("Basic a") is None
    assert "a" not in repr(Keys(("secret",), "secret")).replace("Keys", "")


def test_two_clients_of_one_server_share_nothing_and_see_only_their_own(service: Service) -> None:
    service.keys = Keys(("a", "b"), "boss")

    def cached(key: str) -> int:
        answer = call(service, "POST", "/v1/completions", json=LONG, headers=as_key(key)).json()
        return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])

    assert [cached(key) for key in ("a", "b", "a", "b", "boss")] == [0, 0, 16, 16, 0]


def test_the_quota_is_the_keys_whatever_salts_it_names() -> None:
    """Each prompt of 5 blocks under a salt of its own: at a quota of 12 only 12 stay."""
    service = make_service(Keys(("a", "b")), tenant_quota_blocks=12)
    engine = service.engine
    assert engine is not None
    for salt in ("1", "2", "3", "4"):
        body = LONG | {"cache_salt": salt, "max_tokens": 1}
        call(service, "POST", "/v1/completions", json=body, headers=as_key("a"))
    assert engine.tree.pool.num_counted == 12
    assert engine.tree.pool.quotas.num_tenants == 1
    engine.stop()


def test_statistics_say_what_lies_where_and_what_hit(service: Service) -> None:
    empty = call(service, "GET", "/cache_stats").json()
    assert (empty["hit_rate"], empty["diversity_index"]) == (None, None)
    for _ in range(2):
        call(service, "POST", "/v1/completions", json=LONG)
    told = call(service, "GET", "/cache_stats").json()
    assert (told["prompt_tokens"], told["cached_tokens"], told["hit_rate"]) == (40, 16, 0.4)
    assert told["tokens"]["replay"] == 16
    assert told["tokens"]["miss_compulsory"] == 24
    assert told["device"]["capacity"] == 50
    assert told["device"]["resident"] == 5
    assert told["diversity_index"] == 0.5
    assert told["last_event"] == 5


def test_events_stream_from_where_the_reader_left_until_the_server_drains(
    service: Service,
) -> None:
    async def follow(since: str) -> str:
        stream = asyncio.ensure_future(ask(service, "GET", f"/kv_events?since={since}"))
        while not service.num_event_streams:
            await asyncio.sleep(0)
        await ask(service, "POST", "/v1/completions", json=LONG | {"max_tokens": 1})
        service.status = DRAINING
        text = (await stream).text
        service.status = "ready"
        return text

    def stored(text: str) -> list[tuple[str, str]]:
        lines = [block.split("\n") for block in text.split("\n\n") if block.startswith("id:")]
        return [(head[4:], json.loads(data[6:])["block"]) for head, _, data in lines]

    told = stored(asyncio.run(follow("0")))
    assert service.engine is not None
    hashes = {node.hash.hex() for node in service.engine.tree.nodes.values() if node.hash}
    assert [number for number, _ in told] == ["1", "2", "3", "4", "5"]
    assert {block for _, block in told} == hashes
    assert stored(asyncio.run(follow("3"))) == told[3:]
    assert service.num_event_streams == 0


def test_a_reader_that_was_too_slow_is_told_how_much_it_missed(service: Service) -> None:
    assert service.engine is not None
    service.engine.tree.events = events = type(service.engine.tree.events)(limit=2)
    for number in range(5):
        events.add("stored", bytes([number]))

    async def follow() -> str:
        stream = asyncio.ensure_future(ask(service, "GET", "/kv_events"))
        while not service.num_event_streams:
            await asyncio.sleep(0)
        service.status = DRAINING
        return (await stream).text

    blocks = asyncio.run(follow()).split("\n\n")
    assert blocks[1] == 'event: lost\ndata: {"num":3}'
    assert [b.split("\n")[0] for b in blocks[2:4]] == ["id: 4", "id: 5"]


@pytest.mark.parametrize("since", ["-1", "x", "9" * 30, "²"])
def test_a_place_that_is_no_number_is_a_400(service: Service, since: str) -> None:
    answer = call(service, "GET", "/kv_events", params={"since": since})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "since")


def test_streams_of_events_are_few(service: Service) -> None:
    service.num_event_streams = 8
    answer = call(service, "GET", "/kv_events")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")


def test_the_log_is_off_until_started_and_holds_no_text(service: Service, tmp_path: Path) -> None:
    """Its rows predict what usage said, through the file format."""
    assert call(service, "POST", "/request_log/take").status_code == 409
    call(service, "POST", "/v1/completions", json=LONG)
    call(service, "POST", "/reset_prefix_cache")
    call(service, "POST", "/request_log/start")
    usages = [
        call(service, "POST", "/v1/completions", json=LONG | {"max_tokens": n}).json()["usage"]
        for n in (1, 4, 2)
    ]
    taken = call(service, "POST", "/request_log/take")
    assert taken.headers["x-lost-rows"] == "0"
    path = tmp_path / "served.jsonl"
    path.write_bytes(taken.content)
    predicted = per_request(read_trace([path]), 50)
    assert [predicted.split(n).hit for n in range(3)] == [
        usage["prompt_tokens_details"]["cached_tokens"] for usage in usages
    ]
    assert predicted.total().hit == 32
    assert call(service, "POST", "/request_log/take").content == b""


def test_the_stub_says_what_it_should(service: Service) -> None:
    """The calls above compare counts; this one shows that real tokens came back."""
    body = BODY | {"return_token_ids": True}
    answer = call(service, "POST", "/v1/completions", json=body).json()
    assert answer["choices"][0]["token_ids"] == expected_reply([5, 6, 7], 4, 340)
