"""Shapes that answers come in: framing, cuts, dialects of events. Every one over a real socket."""

from __future__ import annotations

import time

import pytest
from byte_server import byte_server, chunked, sized
from client_faults import CHUNKED, DONE, EVENTS, FINISH, HELLO, OPEN, ROLE, USAGE, WORLD

from loadkit.client import exchange
from loadkit.client.answer import Response
from loadkit.client.endpoint import Endpoint
from loadkit.client.stream import StreamClient
from loadkit.client.timeouts import Timeouts


def ask(url: str, timeout_s: float = 5.0) -> Response:
    client = StreamClient(Endpoint.parse(url), timeouts=Timeouts(total_s=timeout_s))
    request = client.prepare({"messages": []}, session="s1")
    response = client.send(client.connect(), request)
    client.close()
    return response


def answer_to(*steps: bytes | float, timeout_s: float = 5.0) -> Response:
    with byte_server(*steps) as server:
        return ask(server.url, timeout_s)


def assert_whole(response: Response) -> None:
    assert (response.outcome, response.error) == ("ok", None)
    assert response.text == "Hello wörld 🌍"
    assert response.finish_reason == "stop"
    assert response.usage[:3] == (9, 2, 4)
    assert len(response.gaps_s) == 1


def test_a_chunked_stream_with_done_is_ok() -> None:
    assert_whole(answer_to(CHUNKED, *chunked(*EVENTS)))


def test_a_stream_with_a_content_length_is_ok() -> None:
    assert_whole(answer_to(sized(b"".join(EVENTS))))


def test_a_stream_that_ends_with_the_connection_is_ok() -> None:
    assert_whole(answer_to(OPEN, *EVENTS))


def test_done_ends_a_close_delimited_stream_that_stays_open() -> None:
    assert_whole(answer_to(OPEN, *EVENTS, 30.0, timeout_s=10.0))


@pytest.mark.parametrize("framing", ["chunked", "open", "sized"])
def test_one_byte_at_a_time_changes_nothing(framing: str) -> None:
    whole = {
        "chunked": CHUNKED + b"".join(chunked(*EVENTS)),
        "open": OPEN + b"".join(EVENTS),
        "sized": sized(b"".join(EVENTS)),
    }[framing]
    assert_whole(answer_to(*(whole[i : i + 1] for i in range(len(whole)))))


def test_chunks_may_cut_events_and_characters_anywhere() -> None:
    body = b"".join(EVENTS)
    for size in (3, 7, 64):
        pieces = [body[i : i + size] for i in range(0, len(body), size)]
        assert_whole(answer_to(CHUNKED, *chunked(*pieces)))


@pytest.mark.parametrize("line_end", [b"\r\n", b"\r"])
def test_events_may_end_their_lines_in_crlf_or_cr(line_end: bytes) -> None:
    assert_whole(answer_to(CHUNKED, *chunked(*(e.replace(b"\n", line_end) for e in EVENTS))))


def test_comments_event_lines_and_a_missing_space_after_data_are_fine() -> None:
    events = (b": ping\n\n", b"event: message\nid: 7\n" + HELLO, b":\n", WORLD, FINISH, USAGE)
    tight = [event.replace(b"data: ", b"data:") for event in events]
    assert_whole(answer_to(CHUNKED, *chunked(*tight, DONE)))


def test_an_event_may_spread_over_several_data_lines() -> None:
    spread = b'data: {"choices":\ndata: [{"delta":{"content":"Hello"}}]}\n\n'
    assert_whole(answer_to(CHUNKED, *chunked(spread, WORLD, FINISH, USAGE, DONE)))


def test_an_interim_100_answer_is_skipped() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert_whole(answer_to(interim + CHUNKED, *chunked(*EVENTS)))


@pytest.mark.parametrize("head", [OPEN, CHUNKED])
def test_a_clean_end_with_finish_reason_needs_no_done(head: bytes) -> None:
    events = EVENTS[:-1]
    assert_whole(answer_to(head, *(chunked(*events) if head is CHUNKED else events)))


def test_a_clean_end_without_finish_reason_and_done_is_cut() -> None:
    response = answer_to(CHUNKED, *chunked(ROLE, HELLO))
    assert response.outcome == "cut"
    assert response.text == "Hello"
    assert response.completed_at is None


def test_a_chunked_stream_that_breaks_off_is_cut_and_keeps_its_first_token_time() -> None:
    response = answer_to(CHUNKED, *chunked(ROLE, HELLO)[:-1])
    assert (response.outcome, response.status) == ("cut", 200)
    assert response.first_token_at is not None
    assert response.usage.cached_tokens is None


def test_a_chunked_stream_that_breaks_off_after_finish_reason_but_before_done_is_cut() -> None:
    assert answer_to(CHUNKED, *chunked(*EVENTS[:-2])[:-1]).outcome == "cut"


def test_a_body_shorter_than_its_content_length_is_cut() -> None:
    assert answer_to(sized(b"".join(EVENTS[:4]))[:-10]).outcome == "cut"


def test_a_torn_last_event_of_a_cut_stream_is_cut_not_malformed() -> None:
    assert answer_to(CHUNKED, *chunked(HELLO, WORLD[:20])[:-1]).outcome == "cut"


def test_a_connection_closed_without_a_byte_is_cut() -> None:
    response = answer_to()
    assert (response.outcome, response.status) == ("cut", None)


def test_an_error_event_in_a_stream_is_cut_with_its_message() -> None:
    error = b'data: {"error":{"message":"engine died\\u001b[31m"}}\n\n'
    response = answer_to(CHUNKED, *chunked(HELLO, error, DONE))
    assert response.outcome == "cut"
    assert response.error == "error in the answer: engine died [31m"


@pytest.mark.parametrize(
    "bad",
    [b"data: {nope\n\n", b"data: [1]\n\n", b"data: \xff\xfe\n\n", b'data: {"choices":[7]}\n\n'],
)
def test_data_that_is_no_answer_is_malformed(bad: bytes) -> None:
    assert answer_to(CHUNKED, *chunked(HELLO, bad, FINISH, DONE)).outcome == "malformed"


def test_bytes_that_are_no_http_are_malformed() -> None:
    response = answer_to(b"\x00\x01 what is this\r\n\r\n")
    assert response.outcome == "malformed"
    assert response.error is not None


def test_an_endless_trickle_ends_at_the_deadline() -> None:
    response = answer_to(CHUNKED, *[0.02, b"8\r\n: ping\n\n\r\n"] * 500, timeout_s=0.3)
    assert response.outcome == "timeout"


def test_silence_ends_at_the_deadline_without_a_status() -> None:
    response = answer_to(30.0, timeout_s=0.2)
    assert (response.outcome, response.status) == ("timeout", None)
    assert response.sent_at is not None


def test_an_endless_flood_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MAX_ANSWER_BYTES", 200_000)
    response = answer_to(OPEN, *[HELLO * 1000] * 20)
    assert response.outcome == "cancelled"


@pytest.mark.parametrize("status", [b"429 Too Many Requests", b"503 Service Unavailable"])
def test_an_error_status_is_an_http_error_with_the_servers_message(status: bytes) -> None:
    body = b'{"error":{"message":"queue full"}}'
    response = answer_to(sized(body, status, b"application/json"))
    assert response.outcome == "http_error"
    assert response.status == int(status[:3])
    assert response.error == "queue full"


def test_an_error_page_that_is_not_json_is_shown_short_and_printable() -> None:
    response = answer_to(sized(b"<h1>Bad\x07 Gateway</h1>" + b"x" * 900, b"502 X", b"text/html"))
    assert response.outcome == "http_error"
    assert response.error is not None
    assert response.error.startswith("<h1>Bad Gateway</h1>")
    assert len(response.error) == 300


def test_an_answer_that_is_not_streamed_has_text_and_usage_but_no_token_times() -> None:
    body = (
        b'{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":3,"completion_tokens":1}}'
    )
    response = answer_to(sized(body, kind=b"application/json"))
    assert (response.outcome, response.text) == ("ok", "Hi")
    assert response.usage[:3] == (3, 1, None)
    assert response.first_token_at is None
    assert response.completed_at is not None


def test_text_completions_reasoning_and_tool_calls_are_tokens_too() -> None:
    for delta in (
        b'{"text":"x"}',
        b'{"delta":{"reasoning_content":"hm"}}',
        b'{"delta":{"tool_calls":[{"index":0}]}}',
    ):
        event = b'data: {"choices":[' + delta + b"]}\n\n"
        response = answer_to(CHUNKED, *chunked(ROLE, event, FINISH, DONE))
        assert response.first_token_at is not None, delta


def test_an_empty_stream_has_no_first_token() -> None:
    response = answer_to(CHUNKED, *chunked(ROLE, FINISH, DONE))
    assert response.outcome == "ok"
    assert response.first_token_at is None


def test_token_ids_are_gathered_when_sent_and_none_when_not() -> None:
    first = b'data: {"choices":[{"delta":{"content":"a"},"token_ids":[5]}]}\n\n'
    second = b'data: {"choices":[{"delta":{"content":"b"},"token_ids":[6,7]}]}\n\n'
    assert answer_to(CHUNKED, *chunked(first, second, DONE)).token_ids == [5, 6, 7]
    assert answer_to(CHUNKED, *chunked(HELLO, DONE)).token_ids is None


def test_first_token_time_is_that_of_the_first_token_not_of_the_role_or_a_comment() -> None:
    steps = [CHUNKED, *chunked(ROLE, b": ping\n\n")[:-1], 0.2, *chunked(HELLO)[:-1], 0.2]
    with byte_server(*steps, *chunked(FINISH, DONE)) as server:
        response = ask(server.url)
    hello_sent_at = server.sent_at[3]
    assert response.first_token_at is not None
    assert response.first_token_at >= hello_sent_at
    assert response.first_token_at < server.sent_at[4]  # before FINISH, 200 ms later
    assert response.completed_at is not None
    assert response.completed_at >= server.sent_at[-1]


def test_an_event_cut_in_two_counts_when_its_second_half_came() -> None:
    steps = [OPEN, HELLO[:20], 0.1, HELLO[20:], 0.1, FINISH, DONE]
    with byte_server(*steps) as server:
        response = ask(server.url)
    assert response.first_token_at is not None
    assert server.sent_at[2] <= response.first_token_at < server.sent_at[3]


def test_a_connection_is_kept_and_only_the_first_request_reports_connecting() -> None:
    with byte_server(CHUNKED, *chunked(*EVENTS), stay=True) as server:
        client = StreamClient(Endpoint.parse(server.url))
        request = client.prepare({"messages": []}, session="s")
        responses = [client.send(client.connect(), request) for _ in range(3)]
        client.close()
        assert [r.outcome for r in responses] == ["ok"] * 3
        assert server.num_connections == 1
        assert [r.connect_s is None for r in responses] == [False, True, True]


def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    with byte_server(sized(b"".join(EVENTS))) as server:
        client = StreamClient(Endpoint.parse(server.url))
        request = client.prepare({"messages": []}, session="s")
        for _ in range(2):
            assert client.send(client.connect(), request).outcome == "ok"
            time.sleep(0.05)
        client.close()
        assert server.num_connections == 2


def test_a_connection_whose_answer_did_not_end_is_not_used_again() -> None:
    with byte_server(CHUNKED, *chunked(ROLE)[:-1], stay=True) as server:
        client = StreamClient(Endpoint.parse(server.url), timeouts=Timeouts(total_s=0.1))
        request = client.prepare({}, session="s")
        outcomes = [client.send(client.connect(), request).outcome for _ in range(2)]
        client.close()
        assert outcomes == ["timeout", "timeout"]
        assert server.num_connections == 2


def test_the_request_says_what_it_must() -> None:
    with byte_server(sized(b"".join(EVENTS))) as server:
        client = StreamClient(Endpoint.parse(server.url + "/api/v1/"))
        client.send(client.connect(), client.prepare({"a": 1}, session="k\r\nx: y é"))
        client.close()
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /api/v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nx-session-id: k%0D%0Ax: y %C3%A9\r\n" in head + b"\r\n"
    assert body == b'{"a":1}'
