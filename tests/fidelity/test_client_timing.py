"""The client's clock against a server that logs the truth. Lower bounds are strict, upper ones
wide: what is checked is that the right moment is measured, not how fast this machine is."""

from __future__ import annotations

from pathlib import Path

from scripted import scripted_server

from loadkit.client.endpoint import Endpoint
from loadkit.client.stream import StreamClient

SLACK_S = 0.1  # below the 150 ms that a wrong event, a buffer or a poll would add


def test_first_and_last_token_are_those_that_the_server_sent(tmp_path: Path) -> None:
    options = ("--ttft", "0.15", "--gap", "0.15", "--tokens", "3")
    with scripted_server(tmp_path, *options) as server:
        client = StreamClient(Endpoint.parse(server.url))
        body = {"messages": [{"role": "user", "content": "how are you"}], "max_tokens": 3}
        responses = []
        for number in range(4):
            request = client.prepare(body, session=f"s{number}")
            responses.append(client.send(client.connect(), request))
        client.close()
        truth = server.truth_of(4)
    assert len(truth) == 4
    first_late, last_late = [], []
    for response, row in zip(responses, truth, strict=True):
        assert response.outcome == "ok"
        assert response.sent_at is not None
        assert response.first_token_at is not None
        assert response.last_token_at is not None
        assert response.sent_at < row["read"]
        assert response.first_token_at >= row["first"]
        assert response.last_token_at >= row["last"]
        assert response.first_token_at - response.sent_at >= 0.15
        assert len(response.gaps_s) == 2
        first_late.append(response.first_token_at - row["first"])
        last_late.append(response.last_token_at - row["last"])
    # A client that looks at the wrong moment is late every time, a busy machine is not.
    assert min(first_late) < SLACK_S
    assert min(last_late) < SLACK_S


def test_token_counts_are_the_servers_own(tmp_path: Path) -> None:
    """5 words, then the same 5 and 2 more: the second request finds 5 cached."""
    with scripted_server(tmp_path, "--tokens", "3", "--ttft", "0") as server:
        client = StreamClient(Endpoint.parse(server.url))
        first = [{"role": "user", "content": "one two three four five"}]
        second = [*first, {"role": "user", "content": "six seven"}]
        usages = []
        for messages in (first, second):
            request = client.prepare({"messages": messages, "max_tokens": 9}, session="s")
            usages.append(client.send(client.connect(), request).usage)
        client.close()
    assert [usage[:3] for usage in usages] == [(5, 3, 0), (7, 3, 5)]
