"""The load of one level, in the process that is judged: `python -m loadkit.calibrate.drive`.

gevent patches the process as Locust does in a load worker, and requests go through the same
StreamClient in the same hub. What is left out is what a worker does beside it: Locust's statistics
and the journal.
"""

from __future__ import annotations

from gevent import monkey

if __name__ == "__main__":
    monkey.patch_all()

import sys
import time
from typing import Any

import gevent
import msgspec

from loadkit.calibrate.limits import allow_many_files
from loadkit.client.collector import calm_collector
from loadkit.client.endpoint import Endpoint
from loadkit.client.receipt import Receipt
from loadkit.client.stalls import StallMonitor, StallReport
from loadkit.client.stream import StreamClient

PATH = "/v1/chat/completions"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to do: `streams` requests at a time for `seconds`, each of `tokens` tokens, `gap_ms`
    apart."""

    url: str
    streams: int
    seconds: float
    tokens: int = 25
    gap_ms: float = 20.0
    kernel_stamps: bool = True


class Sent(msgspec.Struct, frozen=True, array_like=True):
    """One request. lag_s: the longest that bytes of it lay in the kernel; None when not known."""

    session: str
    outcome: str
    first_token_at: float | None
    num_tokens: int
    lag_s: float | None


class Driven(msgspec.Struct, frozen=True):
    """All of a level. Processor time is that of this process between its first and last request."""

    requests: list[Sent]
    stalls: StallReport


class Driver:
    def __init__(self, order: Order):
        self.order = order
        self.client = StreamClient(Endpoint.parse(order.url), kernel_stamps=order.kernel_stamps)
        self.sent: list[Sent] = []

    def run(self) -> Driven:
        """Streams start evenly spread over one answer's length, on connections opened before: a
        thousand that begin and end in the same moment are a storm, not a concurrency."""
        order = self.order
        connections = [self.client.connect() for _ in range(order.streams)]
        calm_collector()  # as a load worker does
        monitor = StallMonitor()
        watcher = gevent.spawn(monitor.run)
        begin = time.monotonic() + 0.05
        step = order.tokens * order.gap_ms / 1000 / order.streams
        greenlets = [
            gevent.spawn(self._stream, number, connection, begin + number * step)
            for number, connection in enumerate(connections)
        ]
        gevent.joinall(greenlets, raise_error=True)
        monitor.stop()
        watcher.join()
        return Driven(self.sent, monitor.report())

    def _stream(self, number: int, connection: Any, start_at: float) -> None:
        """One request after the other; the next uses the connection that the last gave back."""
        time.sleep(max(start_at - time.monotonic(), 0.0))
        end_at, turn = start_at + self.order.seconds, 0
        while turn == 0 or time.monotonic() < end_at:
            connection = connection or self.client.connect()
            self._one(f"s{number}-{turn}", connection)
            connection, turn = None, turn + 1

    def _one(self, session: str, connection: Any) -> None:
        body = {"messages": [], "max_tokens": self.order.tokens}
        request = self.client.prepare(body, session=session)
        gap = f"x-gap-ms: {self.order.gap_ms:g}\r\nx-session-id:".encode()
        receipt = Receipt()
        response = self.client.send(connection, request.replace(b"x-session-id:", gap, 1), receipt)
        tokens = len(response.gaps_s) + (response.first_token_at is not None)
        sent = Sent(session, response.outcome, response.first_token_at, tokens, receipt.lag_s)
        self.sent.append(sent)


def main() -> None:
    allow_many_files()
    order = msgspec.json.decode(sys.argv[1].encode(), type=Order)
    sys.stdout.buffer.write(msgspec.json.encode(Driver(order).run()))


if __name__ == "__main__":
    main()
