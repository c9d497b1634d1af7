"""Waits for an exchange's socket: with poll() in a plain process, in gevent's hub under Locust.

In the hub an arrival is stamped and stored by a callback; the request's own greenlet is woken once,
when the answer has ended. A greenlet switch a piece would cost more than the rest of the work.
"""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable
from typing import Any

from loadkit.client.exchange import Exchange

Pump = Callable[[Exchange], None]
READ, WRITE = 1, 2


def choose_pump() -> Pump:
    """The one for this process: gevent's when sockets are patched, and gevent is not imported for
    the question."""
    monkey = sys.modules.get("gevent.monkey")
    return HubPump() if monkey is not None and monkey.is_module_patched("socket") else pump_plain


def pump_plain(exchange: Exchange) -> None:
    """Run an exchange that has begun until its receipt has ended. Blocks the thread."""
    poll = select.poll()
    while exchange.receipt.ended is None:
        sending = exchange.is_sending
        poll.register(exchange.fd, select.POLLOUT if sending else select.POLLIN)
        remaining = exchange.due - time.monotonic()
        if remaining <= 0:
            exchange.on_due()
        elif poll.poll(1000 * min(remaining, 3600) + 1):
            exchange.on_writable() if sending else exchange.on_readable()


class HubPump:
    """The same for one greenlet of a patched process. A kill passes through and leaves no trace."""

    def __init__(self) -> None:
        from gevent.hub import Waiter, get_hub

        self._loop, self._waiter = get_hub().loop, Waiter

    def __call__(self, exchange: Exchange) -> None:
        while exchange.is_sending:
            _HubWait(self._loop, self._waiter(), exchange, WRITE).run()
        if exchange.receipt.ended is None:
            _HubWait(self._loop, self._waiter(), exchange, READ).run()


class _HubWait:
    """Lets the hub call on_readable (or on_writable, once) and on_due until the wait is over."""

    def __init__(self, loop: Any, waiter: Any, exchange: Exchange, events: int):
        self._loop, self._exchange, self._waiter = loop, exchange, waiter
        self._io = loop.io(exchange.fd, events)
        self._on_io = exchange.on_readable if events == READ else self._write
        self._timer = self._limit_timer()

    def run(self) -> None:
        try:
            self._io.start(self._call, self._on_io)
            self._timer.start(self._call, self._on_limit)
            self._waiter.get()
        finally:
            for watcher in (self._io, self._timer):
                watcher.stop()
                watcher.close()

    def _call(self, is_over: Callable[[], bool]) -> None:
        """Runs in the hub, where nothing may be raised: a fault of ours goes to who waits."""
        try:
            if is_over():
                self._stop()
                self._waiter.switch(None)
        except Exception as error:
            self._stop()
            self._waiter.throw(error)

    def _stop(self) -> None:
        self._io.stop()
        self._timer.stop()

    def _write(self) -> bool:
        self._exchange.on_writable()
        return not self._exchange.is_sending

    def _on_limit(self) -> bool:
        if self._exchange.on_due():
            return True
        self._timer.stop()  # bytes came since, or gevent's cached clock fired early
        self._timer.close()
        self._timer = self._limit_timer()
        self._timer.start(self._call, self._on_limit)
        return False

    def _limit_timer(self) -> Any:
        return self._loop.timer(max(self._exchange.due - time.monotonic(), 0.0) + 0.001)
