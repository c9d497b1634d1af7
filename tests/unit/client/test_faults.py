"""Every fault of tests/support/client_faults.py over a real socket, with several seeds: a label in
the answer, never a hang and never an exception. And the faults that happen before a byte is sent."""

from __future__ import annotations

import random
import socket
import time
from pathlib import Path

import msgspec
import pytest
from byte_server import byte_server
from client_faults import (
    BODY,
    DONE,
    EVENTS,
    FAULTS,
    FINISH,
    HEAD,
    HELLO,
    IDS,
    JSON,
    USAGE,
    WHOLE,
    Fault,
    chunked,
    sized,
    stream,
    table,
)

from loadkit.client.answer import Response, decode
from loadkit.client.endpoint import Endpoint
from loadkit.client.exchange import MAX_ANSWER_BYTES, RECEIVE_BYTES
from loadkit.client.receipt import Receipt
from loadkit.client.stream import StreamClient
from loadkit.client.timeouts import Timeouts

DOCS = Path(__file__).parents[3] / "docs" / "client-faults.md"


PLACES = (  # of the fields that are not skipped
    b'{"choices":[],"usage":%s}',
    b'{"choices":[],"usage":{"prompt_tokens":1,"prompt_tokens_details":%s}}',
    b'{"choices":[],"usage":{"prompt_tokens":1,"loadkit":%s}}',
    b'{"choices":[],"timings":%s}',
    b'{"choices":[],"x_groq":%s}',
    b'{"choices":[],"prompt_token_ids":%s}',
    b'{"error":%s}',
    b'{"error":{"message":%s}}',
    b'{"choices":[{"delta":{"content":%s}}]}',
    b'{"choices":[{"delta":{"tool_calls":%s}}]}',
    b'{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":%s}}]}}]}',
    b'{"type":"content_block_delta","delta":%s}',
    b'{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","input":%s}}',
    b'{"type":"message_start","message":%s}',
)


def ask(url: str, body: object = None, **limits: float) -> tuple[Response, Receipt]:
    client = StreamClient(Endpoint.parse(url), timeouts=Timeouts(**{"total_s": 10.0, **limits}))
    receipt = Receipt()
    try:
        request = client.prepare({"messages": body}, session="s")
        return client.send(client.connect(), request, receipt), receipt
    finally:
        client.close()


def seeds_of(fault: Fault) -> range:
    """Three for a fault that leaves something to chance, one for what is the same every time."""
    first, second = (list(fault.steps(random.Random(seed))) for seed in range(2))
    return range(1 if first == second else 3)


@pytest.mark.parametrize(
    ("fault", "seed"),
    [
        pytest.param(fault, seed, id=f"{fault.what}-{seed}")
        for fault in FAULTS
        for seed in seeds_of(fault)
    ],
)
def test_each_fault_has_its_label(fault: Fault, seed: int) -> None:
    with byte_server(*fault.steps(random.Random(seed))) as server:
        response, receipt = ask(server.url, **fault.limits)
    assert response.outcome == fault.outcome, response.error
    if fault.says is None:
        assert response.error is None
    else:
        assert response.error is not None
        assert fault.says in response.error
    if response.outcome not in ("ok", "http_error"):
        assert response.completed_at is None
    assert receipt.num_bytes <= MAX_ANSWER_BYTES + RECEIVE_BYTES
    response.text.encode()  # can be written down


def test_docs_list_every_fault() -> None:
    assert table() in DOCS.read_text("utf-8"), "run tests/support/client_faults.py"


def test_of_two_usages_the_last_counts_and_impossible_counts_are_not_known() -> None:
    by_name = {fault.what: fault for fault in FAULTS}

    def usage(what: str) -> tuple[int | None, ...]:
        with byte_server(*by_name[what].steps(random.Random(0))) as server:
            return ask(server.url)[0].usage[:3]

    assert usage("reports usage twice") == (9, 2, 4)
    assert usage("reports more cached than prompt tokens") == (9, 2, None)
    assert usage("reports a number of tokens that cannot be") == (None, 2, 4)


@pytest.mark.parametrize("number", [-1, 1 << 31, 1 << 64, 1 << 70])
def test_an_id_that_cannot_be_makes_the_ids_unknown_not_the_answer(number: int) -> None:
    ids = IDS % number
    with byte_server(
        *stream(HELLO, IDS % ((1 << 31) - 1), ids, FINISH, USAGE, DONE)(random.Random())
    ) as s:
        response, _ = ask(s.url)
    assert (response.outcome, response.text, response.token_ids) == ("ok", "Helloxx", None)
    assert response.usage.cached_tokens == 4


def test_what_no_reader_foresaw_is_malformed_not_an_exception(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr("loadkit.client.answer.decode_body", fail)
    with byte_server(WHOLE) as server:
        response, _ = ask(server.url)
    assert response.outcome == "malformed"
    assert response.error == "not readable: ZeroDivisionError: a fault of ours"


@pytest.mark.parametrize("depth", [5, 60, 500, 950, 200_000])
@pytest.mark.parametrize("place", PLACES)
def test_no_field_can_be_nested_so_deep_that_it_raises_or_cannot_be_written(
    place: bytes, depth: int
) -> None:
    for left, right in ((b"[", b"]"), (b'{"a":', b"}")):
        event = b"data: %s\n\n" % (place % (left * depth + b"1" + right * depth))
        with byte_server(*stream(HELLO, event, FINISH, DONE)(random.Random())) as server:
            response, _ = ask(server.url)
        assert response.outcome in ("ok", "cut", "malformed")
        msgspec.msgpack.encode((response.text, response.error, response.tool_calls))


def test_a_cut_stream_keeps_what_came_before_the_cut() -> None:
    with byte_server(WHOLE[: WHOLE.index(b"w\xc3") + 2]) as server:
        response, _ = ask(server.url)
    assert (response.outcome, response.text) == ("cut", "Hello")
    assert response.first_token_at is not None


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nobody_there_and_tls_to_a_plain_port_are_errors_of_connecting(scheme: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="refused"):
            ask(f"{scheme}://127.0.0.1:{closed.getsockname()[1]}")
    if scheme == "https":
        with byte_server(b"HTTP/1.1 400 X\r\n\r\n") as server, pytest.raises(OSError):
            ask(server.url.replace("http", "https"), connect_s=0.3)


def test_a_name_that_does_not_resolve_is_an_error_of_connecting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(OSError, match="not a host name"):
        ask("http://" + "a" * 70 + ".example")
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(OSError, match="not known"):
        ask("http://gpu-7.example")


def test_a_server_that_takes_no_request_body_ends_in_a_label() -> None:
    """It answers 413 after the head and hangs up while 8 MB are being sent. Whether its answer can
    still be read is up to the kernel: the reset may have thrown it away."""

    def refuse(connection: socket.socket) -> None:
        connection.sendall(sized(b'{"error":{"message":"too long"}}', b"413 X", JSON))

    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    client = StreamClient(Endpoint.parse(url), timeouts=Timeouts(total_s=10.0))
    connection = client.connect()
    peer, _ = listener.accept()
    with peer, listener:
        refuse(peer)
        peer.close()
        request = client.prepare({"messages": "x" * 8_000_000}, session="s")
        response = client.send(connection, request)
    client.close()
    assert response.outcome in ("http_error", "cut")


def test_a_request_that_is_never_read_ends_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        response, _ = ask(url, "x" * 30_000_000, total_s=0.3)
    assert response.outcome == "timeout"


def test_a_second_answer_unasked_is_not_taken_for_the_next_requests() -> None:
    other = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunked(*EVENTS[2:]))
    with byte_server(WHOLE + other, stay=True) as server:
        client = StreamClient(Endpoint.parse(server.url))
        request = client.prepare({}, session="s")
        texts = [client.send(client.connect(), request).text for _ in range(2)]
        client.close()
        assert server.num_connections == 2
    assert texts == ["Hello wörld 🌍"] * 2


def test_a_user_who_leaves_is_cancelled_and_the_connection_not_used_again() -> None:
    with byte_server(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *chunked(*EVENTS)[:3], 30.0
    ) as s:
        client = StreamClient(Endpoint.parse(s.url))
        request = client.prepare({}, session="s")
        response = client.send(client.connect(), request, leave_after_s=1.0)
        client.close()
    assert (response.outcome, response.error) == ("cancelled", "the user left")
    assert response.text == "Hello wörld 🌍"


def test_an_answer_that_is_whole_before_the_user_leaves_is_ok() -> None:
    with byte_server(sized(BODY)) as server:
        client = StreamClient(Endpoint.parse(server.url))
        request = client.prepare({}, session="s")
        assert client.send(client.connect(), request, leave_after_s=5.0).outcome == "ok"
        client.close()


def test_usage_in_many_halves_takes_no_time_of_its_square() -> None:
    """Each of 60,000 events brings a name of its own: 1,800 million names if all were copied again."""
    events = b"".join(
        b'data: {"type":"message_delta","usage":{"n%d":1,"output_tokens":%d}}\n\n' % (n, n)
        for n in range(60_000)
    )
    receipt = Receipt()
    receipt.begin(0.0)
    receipt.feed(HEAD + b"\r\n" + events + b'data: {"type":"message_stop"}\n\n')
    receipt.end("closed")
    receipt.forget_parser()
    began = time.process_time()
    response = decode(receipt)
    assert (response.outcome, time.process_time() - began < 3) == ("ok", True)


def test_the_time_that_an_answer_takes_to_read_grows_as_it_does_not_as_its_square() -> None:
    """Tool calls in pieces: 2 MB, then eight times as much."""
    piece = b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"%s"}}]}}]}\n\n'

    def seconds(num_events: int) -> float:
        receipt = Receipt()
        receipt.begin(0.0)
        receipt.feed(HEAD + b"\r\n" + piece % (b"x" * 10_000) * num_events + FINISH + DONE)
        receipt.forget_parser()
        began = time.process_time()
        assert len(decode(receipt).tool_calls[0].arguments) == 10_000 * num_events
        return time.process_time() - began

    small = min(seconds(200) for _ in range(3))
    assert min(seconds(1600) for _ in range(2)) < 30 * max(small, 0.005)
