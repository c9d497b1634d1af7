"""The router over stub replicas: what passes, what is tried again, and how a loss is told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from stub_replicas import Stub, Stubs

from reference_server.keys import Keys
from reference_server.router.serve import RouterSettings, guarded
from reference_server.router.usage import UsageTail

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "words " * 100}]}
STREAM = CHAT | {"stream": True}


def code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


def test_an_identical_prompt_goes_where_it_was() -> None:
    world = Stubs(3)
    places = {world.post(CHAT).headers["x-loadkit-replica"] for _ in range(4)}
    assert places == {"0"}
    assert world.post(CHAT).json()["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert world.count("requests_total", replica="0") == 5


def test_body_and_headers_reach_the_replica_but_for_those_of_the_hop() -> None:
    world = Stubs(1)
    world.post(CHAT, authorization="Bearer k", origin="http://router", x_session_id="s")
    (request,), (body,) = world.stubs[0].requests, world.stubs[0].bodies
    assert json.loads(body) == CHAT
    assert (request.headers["authorization"], request.headers["x-session-id"]) == ("Bearer k", "s")
    assert request.headers["host"] == "0"
    assert "origin" not in request.headers


def test_a_replica_that_gave_no_byte_is_replaced_by_another() -> None:
    world = Stubs(2)
    world.stubs[0].fault = "lose"
    answer = world.post(STREAM)
    assert (answer.status_code, answer.headers["x-loadkit-replica"]) == (200, "1")
    assert answer.text.endswith("data: [DONE]\n\n")
    assert world.count("retries_total", reason="lost") == 1


def test_a_request_that_loses_two_replicas_is_not_sent_to_a_third() -> None:
    world = Stubs(3)
    for stub in world.stubs:
        stub.fault = "lose"
    answer = world.post(CHAT)
    assert (answer.status_code, code(answer)) == (502, "replica_lost")
    assert sum(len(stub.requests) for stub in world.stubs) == 2


def test_a_stream_that_is_lost_on_the_way_ends_with_an_error_event() -> None:
    world = Stubs(2)
    world.stubs[0].fault = "cut"
    answer = world.post(STREAM)
    assert answer.status_code == 200
    error, rest = last_event(answer.text)
    assert json.loads(answer.text.partition("\n\n")[0][6:])["choices"]
    assert (error["error"]["code"], rest) == ("replica_lost", "")
    assert world.stubs[1].requests == []
    assert world.count("lost_total", replica="0") == 1


def last_event(text: str) -> tuple[dict[str, Any], str]:
    _, _, event = text.rpartition("data: ")
    line, _, rest = event.partition("\n\n")
    return json.loads(line), rest


@pytest.mark.parametrize("status", [429, 503])
def test_a_replica_that_cannot_begin_hands_over_and_the_last_refusal_is_passed_on(
    status: int,
) -> None:
    world = Stubs(2)
    world.stubs[0].fault = status
    assert world.post(CHAT).headers["x-loadkit-replica"] == "1"
    world.stubs[1].fault = status
    answer = world.post(CHAT)
    assert (answer.status_code, code(answer)) == (status, f"stub_{status}")


def test_other_refusals_are_the_clients_to_see() -> None:
    world = Stubs(2)
    world.stubs[0].fault = 400
    assert world.post(CHAT).status_code == 400
    assert world.stubs[1].requests == []


def test_a_replica_that_nobody_hears_is_out_until_it_answers_and_empty_then() -> None:
    world = Stubs(2)
    world.post(CHAT)
    world.stubs[0].fault = "refuse"
    assert world.post(CHAT).headers["x-loadkit-replica"] == "1"
    assert world.get("/health").json() == {"status": "ready", "replicas": 2, "up": [1]}
    world.stubs[0].fault = None
    asyncio.run(world.router.health.check_all())
    assert world.get("/health").json()["up"] == [0, 1]
    assert world.post(CHAT).headers["x-loadkit-replica"] == "1"


def test_what_a_hanging_replica_did_not_begin_goes_elsewhere_once_it_is_taken_out() -> None:
    async def scenario() -> None:
        world = Stubs(2)
        world.stubs[0].fault = "hang"
        asking = asyncio.create_task(world.apost(STREAM))
        await world.stubs[0].is_asked.wait()
        await world.router.health.check_all()
        assert not asking.done()  # late once: it may be busy
        await world.router.health.check_all()
        answer = await asking
        assert (answer.status_code, answer.headers["x-loadkit-replica"]) == (200, "1")
        assert (world.fleet.replicas[0].queued, world.fleet.replicas[0].num_in_flight) == (0, 0)

    asyncio.run(scenario())


def test_what_has_no_address_is_not_asked_and_is_out() -> None:
    world = Stubs(2)
    world.fleet.replicas[0].url = ""
    asyncio.run(world.router.health.check_all())
    assert world.get("/health").json()["up"] == [1]
    assert world.stubs[0].requests == []


def test_an_answer_of_where_a_replica_was_does_not_bring_it_back() -> None:
    """It died, and was taken out, while its old address was being asked."""
    world = Stubs(1)
    replica = world.fleet.replicas[0]

    class Dying(Stub):
        def answer(self, request: httpx.Request, body: bytes) -> httpx.Response:
            replica.take_out()
            replica.url = ""
            return super().answer(request, body)

    world.stubs[0] = Dying()
    asyncio.run(world.router.health.check_all())
    assert len(world.stubs[0].requests) == 1
    assert not replica.is_up


def test_with_no_replica_left_health_and_requests_say_so() -> None:
    world = Stubs(1)
    world.stubs[0].fault = "refuse"
    assert code(world.post(CHAT)) == "replica_lost"
    assert code(world.post(CHAT)) == "no_replica"
    assert world.get("/health").status_code == 503


def test_a_draining_router_takes_nothing_new() -> None:
    world = Stubs(1)
    world.router.is_draining = True
    answer = world.post(CHAT)
    assert (answer.status_code, code(answer)) == (503, "draining")
    assert world.get("/health").json()["status"] == "draining"


def test_a_reset_goes_to_all_and_fails_if_one_could_not() -> None:
    world = Stubs(2)
    world.post(CHAT)
    assert reset(world) == {"success": True}
    assert world.post(CHAT).status_code == 200
    assert world.count("matched_blocks_total", replica="0") == 0
    world.stubs[1].resets = False
    assert reset(world) == {"success": False}


def reset(world: Stubs) -> Any:
    async def ask() -> Any:
        async with world.client() as client:
            return (await client.post("/reset_prefix_cache")).json()

    return asyncio.run(ask())


# -- streams


def test_chunks_pass_while_the_replica_still_works_and_the_queue_is_free_by_then() -> None:
    """The first chunk is with the client before the replica is allowed to make the second."""

    async def scenario() -> None:
        world = Stubs(1)
        stub = world.stubs[0]
        stub.gate = asyncio.Event()
        seen: list[bytes] = []

        async def send(message: Any) -> None:
            if message.get("body"):
                seen.append(message["body"])
                assert (world.fleet.replicas[0].queued, stub.gate.is_set()) == (0, len(seen) > 1)
                stub.gate.set()

        await world.router(chat_scope(), Sending(STREAM), send)
        assert len(seen) == 3
        assert world.fleet.replicas[0].num_in_flight == 0

    asyncio.run(scenario())


def test_when_the_client_leaves_the_replica_hears_of_it() -> None:
    async def scenario() -> None:
        world = Stubs(1)
        stub = world.stubs[0]
        stub.gate = asyncio.Event()
        receive = Sending(STREAM)

        async def send(message: Any) -> None:
            if message.get("body"):
                receive.leaves.set()

        await world.router(chat_scope(), receive, send)
        assert stub.is_closed_by_client
        replica = world.fleet.replicas[0]
        assert (replica.queued, replica.num_in_flight) == (0, 0)

    asyncio.run(scenario())


class Sending:
    """`receive` of a client that sends a body and leaves when told to."""

    def __init__(self, body: Any) -> None:
        self._body: bytes | None = json.dumps(body).encode()
        self.leaves = asyncio.Event()

    async def __call__(self) -> Any:
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body}
        await self.leaves.wait()
        return {"type": "http.disconnect"}


def chat_scope() -> dict[str, Any]:
    path = "/v1/chat/completions"
    return {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}


# -- metrics


PAGE = """# HELP vllm:prompt_tokens_total t
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{{model_name="m"}} {tokens}
# HELP vllm:num_requests_running r
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{model_name="m"}} {running}
# HELP vllm:kv_cache_usage_perc k
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{{model_name="m"}} {usage}
# HELP vllm:ttft t
# TYPE vllm:ttft histogram
vllm:ttft_bucket{{le="0.1",model_name="m"}} 1
vllm:ttft_bucket{{le="+Inf",model_name="m"}} 2
vllm:ttft_count{{model_name="m"}} 2
vllm:ttft_sum{{model_name="m"}} 0.5
"""


def test_counts_of_the_replicas_are_summed_and_shares_averaged() -> None:
    world = Stubs(2)
    world.stubs[0].metrics = PAGE.format(tokens=10, running=1, usage=0.25)
    world.stubs[1].metrics = PAGE.format(tokens=32, running=2, usage=0.75)
    page = world.get("/metrics").text.splitlines()
    assert 'vllm:prompt_tokens_total{model_name="m"} 42.0' in page
    assert 'vllm:num_requests_running{model_name="m"} 3.0' in page
    assert 'vllm:kv_cache_usage_perc{model_name="m"} 0.5' in page
    assert 'vllm:ttft_bucket{le="+Inf",model_name="m"} 4.0' in page
    assert 'loadkit:router_replica_up{replica="1"} 1.0' in page


def test_a_lost_replica_keeps_its_counts_and_loses_its_gauges() -> None:
    """A sum that fell would look like a restart to whoever reads rates."""
    world = Stubs(2)
    for stub in world.stubs:
        stub.metrics = PAGE.format(tokens=10, running=1, usage=0.5)
    world.get("/metrics")
    world.stubs[0].fault = "refuse"
    world.get("/metrics")
    page = world.get("/metrics").text.splitlines()
    assert 'vllm:prompt_tokens_total{model_name="m"} 20.0' in page
    assert 'vllm:num_requests_running{model_name="m"} 1.0' in page


def test_usage_is_read_across_chunks_and_never_from_the_replys_own_text() -> None:
    tail = UsageTail()
    said = json.dumps({"text": '"prompt_tokens": 5, "cached_tokens": 5'})
    for part in (said, '"usage": {"prompt_tok', 'ens": 64, "d": {"cached_tokens":48}}'):
        tail.feed(part.encode())
    assert tail.read() == (64, 48)
    other = UsageTail()
    other.feed(said.encode())
    assert other.read() is None


# -- keys, restarts, drain


def test_without_a_key_nothing_is_read_and_no_replica_is_asked() -> None:
    world = Stubs(2)
    app = guarded(world.router, RouterSettings([], append_only="enforce", keys=Keys(("k",))))

    async def scenario() -> list[int]:
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
            bearers = ("", "Bearer other", "Bearer k")
            asked = [
                client.post("/v1/chat/completions", json=CHAT, headers={"authorization": bearer})
                for bearer in bearers
            ]
            codes = [(await made).status_code for made in asked]
            return [*codes, (await client.get("/health")).status_code]

    assert asyncio.run(scenario()) == [401, 401, 200, 200]
    assert sum(len(stub.requests) for stub in world.stubs) == 1


@pytest.mark.parametrize(("admin_key", "is_told"), [(None, False), ("boss", True)])
def test_which_replica_it_was_is_told_to_the_operator_alone(
    admin_key: str | None, is_told: bool
) -> None:
    """To others it would say how busy the replicas are, with whatever somebody else sends."""
    world = Stubs(1)
    app = guarded(world.router, RouterSettings([], keys=Keys(("a", "b"), admin_key)))

    async def scenario() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
            headers = {"authorization": f"Bearer {admin_key or 'a'}"}
            return await client.post("/v1/chat/completions", json=CHAT, headers=headers)

    assert ("x-loadkit-replica" in asyncio.run(scenario()).headers) == is_told


@pytest.mark.parametrize("path", ["/health", "/version"])
@pytest.mark.parametrize(
    ("method", "status"), [("GET", 200), ("HEAD", 200), ("POST", 405), ("PUT", 405)]
)
def test_what_is_open_to_all_is_answered_with_no_body_read_and_no_replica_asked(
    path: str, method: str, status: int
) -> None:
    world = Stubs(1)
    app = guarded(world.router, RouterSettings([], keys=Keys(("k",))))
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = chat_scope() | {"method": method, "path": path}
    asyncio.run(app(scope, receive, send))
    assert (sent[0]["status"], world.stubs[0].requests) == (status, [])
    assert ((b"allow", b"GET, HEAD") in sent[0]["headers"]) == (status == 405)


def test_who_gave_no_key_is_not_told_which_replica_answered() -> None:
    """As on a path that is open to all: nobody has said there who it is."""
    world = Stubs(1)

    async def scenario() -> list[bytes]:
        names: list[bytes] = []

        async def send(message: Any) -> None:
            names.extend(name for name, _ in message.get("headers", ()))

        await world.router(chat_scope(), Sending(CHAT), send)
        return names

    names = asyncio.run(scenario())
    assert b"content-type" in names
    assert b"x-loadkit-replica" not in names


def test_a_replica_that_was_started_again_counts_on_from_where_it_was() -> None:
    world = Stubs(1)
    world.stubs[0].metrics = PAGE.format(tokens=10, running=1, usage=0.5)
    world.get("/metrics")
    world.router.started_again(0)
    world.stubs[0].metrics = PAGE.format(tokens=2, running=3, usage=0.5)
    page = world.get("/metrics").text.splitlines()
    assert 'vllm:prompt_tokens_total{model_name="m"} 12.0' in page
    assert 'vllm:num_requests_running{model_name="m"} 3.0' in page
    assert 'loadkit:router_replica_restarts_total{replica="0"} 1.0' in page


@pytest.mark.parametrize("stream", [True, False])
def test_when_the_drain_is_over_what_is_in_flight_ends_with_a_reason(stream: bool) -> None:
    """A stream that had begun by an event, an answer that had not by a 503."""

    async def scenario() -> tuple[int, bytes]:
        world = Stubs(1)
        stub, seen = world.stubs[0], []
        begun = asyncio.Event()
        stub.gate = asyncio.Event()
        if not stream:
            stub.fault = "hang"
            begun = stub.is_asked

        async def send(message: Any) -> None:
            seen.append(message)
            if message.get("body"):
                begun.set()

        sent = Sending(STREAM if stream else CHAT)
        asking = asyncio.create_task(world.router(chat_scope(), sent, send))
        await begun.wait()
        world.router._loop = asyncio.get_running_loop()
        world.router.end_requests()
        await asking
        assert not seen[-1].get("more_body", False)
        return seen[0]["status"], seen[-1]["body"]

    status, last = asyncio.run(scenario())
    assert status == (200 if stream else 503)
    error = json.loads(last.strip().removeprefix(b"data: "))["error"]
    assert (error["code"], error["message"]) == ("aborted", "the server is stopping")
