"""Each limit ends what it is there for and nothing else. Times leave room for a busy machine."""

from __future__ import annotations

from byte_server import Step, byte_server, chunked
from client_faults import CHUNKED, DONE, FINISH, HELLO, ROLE, WORLD

from loadkit.client.answer import Response
from loadkit.client.endpoint import Endpoint
from loadkit.client.stream import StreamClient
from loadkit.client.timeouts import Timeouts

END = chunked(WORLD, FINISH, DONE)


def ask(timeouts: Timeouts, *steps: Step) -> Response:
    with byte_server(CHUNKED, *steps) as server:
        client = StreamClient(Endpoint.parse(server.url), timeouts=timeouts)
        response = client.send(client.connect(), client.prepare({}, session="s"))
        client.close()
    return response


def test_the_first_tokens_limit_is_over_once_there_is_a_token() -> None:
    first = chunked(ROLE, HELLO)[:-1]
    response = ask(Timeouts(first_token_s=0.2), *first, 0.5, *END)
    assert (response.outcome, response.text) == ("ok", "Hello wörld 🌍")


def test_a_role_is_no_token_for_the_first_tokens_limit() -> None:
    response = ask(Timeouts(first_token_s=0.2), *chunked(ROLE)[:-1], 30.0)
    assert response.error == "no first token within 0.2 s"


def test_an_answer_that_is_never_silent_may_take_longer_than_the_idle_limit() -> None:
    slow: list[Step] = [step for _ in range(8) for step in (0.1, *chunked(HELLO)[:-1])]
    response = ask(Timeouts(idle_s=0.6), *slow, *END)
    assert response.outcome == "ok"
    assert response.text.count("Hello") == 8


def test_the_first_limit_to_pass_is_the_one_named() -> None:
    timeouts = Timeouts(idle_s=0.3, first_token_s=0.1, total_s=0.2)
    assert ask(timeouts, 30.0).error == "no first token within 0.1 s"
    with_token = ask(timeouts, *chunked(HELLO)[:-1], 30.0)
    assert with_token.error == "no complete answer within 0.2 s"
    assert with_token.text == "Hello"
