"""Kernel stamps carried over to the monotonic clock, and when they are not believed."""

from __future__ import annotations

import struct
import sys
import threading
import time

import pytest
from byte_server import byte_server, chunked
from client_faults import CHUNKED, EVENTS

from loadkit.client import kernel_time
from loadkit.client.endpoint import Endpoint
from loadkit.client.exchange import Exchange
from loadkit.client.receipt import Receipt
from loadkit.client.stream import StreamClient


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock stands at 1,000,000.5 s."""
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_500_000_000)


def stamp(seconds: int, nanoseconds: int) -> bytes:
    return struct.pack("@qq", seconds, nanoseconds)


@pytest.mark.usefixtures("wall")
def test_a_stamp_of_3_ms_ago_is_3_ms_before_now() -> None:
    at = kernel_time.arrived_at(
        stamp(1_000_000, 497_000_000), earliest=70.0, now=77.0, clock=lambda: 77.0
    )
    assert at == pytest.approx(76.997, abs=1e-6)


@pytest.mark.usefixtures("wall")
def test_what_passes_between_reading_the_clocks_makes_it_late_never_early() -> None:
    def at(paused_s: float) -> float:
        recent = stamp(1_000_000, 497_000_000)
        return kernel_time.arrived_at(recent, 70.0, 77.0, clock=lambda: 77.0 + paused_s)

    assert at(0.0) < at(0.001) < at(0.01) == 77.0


@pytest.mark.usefixtures("wall")
@pytest.mark.parametrize(
    "bad",
    [
        stamp(1_000_000, 500_100_000),  # in the future: the clock was set back meanwhile
        stamp(999_900, 0),  # before the request was sent: the clock was set forward
        b"",
        b"\0" * 8,
    ],
)
def test_a_stamp_that_cannot_be_is_not_believed(bad: bytes) -> None:
    assert kernel_time.arrived_at(bad, 70.0, 77.0, clock=lambda: 77.0) == 77.0


def read_late(*, kernel_stamps: bool) -> tuple[Receipt, float, float]:
    """(receipt, when the server began to send, when it had sent all) of a stream that is let lie
    for 100 ms before it is read."""
    sent = threading.Event()
    with byte_server(CHUNKED, *chunked(*EVENTS), lambda _: sent.set()) as server:
        client = StreamClient(Endpoint.parse(server.url), kernel_stamps=kernel_stamps)
        connection, receipt = client.connect(), Receipt()
        pump, there = client._pump, 0.0

        def late_pump(exchange: Exchange) -> None:
            nonlocal there
            assert sent.wait(10)
            there = time.monotonic()
            time.sleep(0.1)
            pump(exchange)

        client._pump = late_pump
        client.send(connection, client.prepare({}, session="s"), receipt)
        client.close()
        return receipt, server.sent_at[0], there


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux has such stamps")
def test_a_busy_client_still_knows_when_bytes_came() -> None:
    for _ in range(10):  # the kernel leaves a stamp out now and then
        receipt, began, there = read_late(kernel_stamps=True)
        if receipt.lag_s is not None:
            break
    assert receipt.lag_s is not None
    assert receipt.lag_s > 0.05
    assert began <= receipt.stamps[0] < there + 0.05


def test_without_kernel_stamps_the_time_is_that_of_reading() -> None:
    receipt, _, there = read_late(kernel_stamps=False)
    assert receipt.lag_s is None
    assert receipt.stamps[0] >= there + 0.1
