"""Runs the levels: a server and, for each level, a load process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.request import ProxyHandler, build_opener

import msgspec

from loadkit.calibrate.drive import Driven, Order
from loadkit.calibrate.levels import Level, judge
from loadkit.core.errors import CannotMeasure
from loadkit.core.units import plural

GRACE_S = 60.0


def calibrate(
    streams: Sequence[int], seconds: float, *, kernel_stamps: bool = True
) -> Iterator[Level]:
    """One Level for each number of streams, as it is done. CannotMeasure when a process fails."""
    for number in streams:
        with truth_server() as url:
            order = Order(url=url, streams=number, seconds=seconds, kernel_stamps=kernel_stamps)
            driven = drive(order)
            yield judge(number, driven, _truth(url))


@contextmanager
def truth_server() -> Iterator[str]:
    """Its URL. It ends with this process, or when its standard input is closed."""
    command = [sys.executable, "-m", "loadkit.calibrate.truth_server"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port = process.stdout.readline().strip()
            if not port:
                raise CannotMeasure("the truth server did not start")
            yield f"http://127.0.0.1:{int(port)}"
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def drive(order: Order) -> Driven:
    """A process's report of one level."""
    command = [sys.executable, "-m", "loadkit.calibrate.drive", msgspec.json.encode(order).decode()]
    try:
        done = subprocess.run(command, capture_output=True, timeout=order.seconds + GRACE_S)
    except subprocess.TimeoutExpired as error:
        raise CannotMeasure(
            f"{plural(order.streams, 'stream')}: no end after {order.seconds + GRACE_S:g} s"
        ) from error
    if done.returncode != 0:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise CannotMeasure(f"{plural(order.streams, 'stream')}: the load failed: {' '.join(last)}")
    return msgspec.json.decode(done.stdout, type=Driven)


def _truth(url: str) -> dict[str, float]:
    with build_opener(ProxyHandler({})).open(f"{url}/truth", timeout=30) as answer:
        truth: dict[str, float] = json.load(answer)
    return truth
