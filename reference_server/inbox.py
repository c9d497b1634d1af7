"""What waits to enter the engine: bounded in requests and tokens, filled from any thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from reference_server.request import Request


class QueueFull(Exception):
    """The queue's bound in requests or tokens is reached; try again later."""


class EngineDead(Exception):
    """The engine stops, or its thread ended with an error; nothing will be served any more."""


class Inbox:
    """Requests wait here, and then with the scheduler, until they are admitted: `admitted` says
    so. `closed`: why nothing more is taken, None while open."""

    def __init__(self, max_requests: int, max_tokens: int):
        self.max_requests, self.max_tokens = max_requests, max_tokens
        self.closed: str | None = None
        self._changed = threading.Condition()
        self._arrived: deque[Request] = deque()
        self._resets: deque[Future[bool]] = deque()
        self._waiting: dict[Request, int] = {}
        self.num_tokens = 0

    @property
    def num_requests(self) -> int:
        return len(self._waiting)

    # -- from any thread

    def put(self, requests: Sequence[Request]) -> None:
        """All or none. QueueFull or EngineDead."""
        with self._changed:
            self._require_open()
            self._require_room(requests)
            for request in requests:
                self._waiting[request] = len(request.tokens)
                self.num_tokens += len(request.tokens)
                self._arrived.append(request)
            self._changed.notify()

    def ask_reset(self) -> Future[bool]:
        """Answered by the engine at its next step. EngineDead."""
        answer: Future[bool] = Future()
        with self._changed:
            self._require_open()
            self._resets.append(answer)
            self._changed.notify()
        return answer

    def abort(self, request: Request) -> None:
        with self._changed:
            request.aborted = True
            self._changed.notify()

    def close(self, reason: str) -> None:
        with self._changed:
            self.closed = self.closed or reason
            self._changed.notify()

    # -- from the engine's thread

    def wait(self, has_work: Callable[[], bool]) -> None:
        """Until something is here, the inbox is closed, or there is other work."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._arrived or self._resets or self.closed is not None or has_work()
            )

    def take(self) -> tuple[list[Request], list[Future[bool]]]:
        """What arrived, and resets that were asked for. What was aborted waits no more."""
        with self._changed:
            arrived, resets = list(self._arrived), list(self._resets)
            self._arrived.clear()
            self._resets.clear()
            for request in [r for r in self._waiting if r.aborted]:
                self._leave(request)
        return arrived, resets

    def admitted(self, request: Request) -> None:
        with self._changed:
            self._leave(request)

    def _leave(self, request: Request) -> None:
        self.num_tokens -= self._waiting.pop(request, 0)

    def _require_open(self) -> None:
        if self.closed is not None:
            raise EngineDead(self.closed)

    def _require_room(self, requests: Sequence[Request]) -> None:
        """An empty queue takes a request of any size."""
        num = self.num_requests + len(requests)
        tokens = self.num_tokens + sum(len(request.tokens) for request in requests)
        if self._waiting and (num > self.max_requests or tokens > self.max_tokens):
            raise QueueFull(f"{self.num_requests} requests with {self.num_tokens} tokens wait")
