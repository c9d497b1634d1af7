"""The master's side of a run on several machines: deals the plan, collects the journals.

The working folder ends up as after a run with local workers, so everything later is the same.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

import gevent
from gevent.event import Event
from locust.runners import STATE_MISSING, MasterRunner

from loadkit.locust_users import wire
from loadkit.locust_users.process import TOKEN_VARIABLE
from loadkit.locust_users.settings import WorkFolder
from loadkit.locust_users.shipping import take_chunk
from loadkit.traffic.plan import TrafficPlan, worker_share

START_LEAD_S = 0.3
HELLO_S = 10.0
COLLECT_S = 15.0
POLL_S = 0.1

logger = logging.getLogger(__name__)


@dataclass
class _Worker:
    """One worker's share of one part."""

    client: str
    index: int
    is_ready: bool = False
    is_done: bool = False


@dataclass
class _Part:
    """A plan under way: its working folder, and who plays it."""

    work: WorkFolder
    workers: dict[str, _Worker]
    ready: Event = field(default_factory=Event)


class Master:
    """Talks to the workers that know the token; others get no share and are not listened to."""

    def __init__(self, runner: MasterRunner, channel: wire.Wire):
        self.runner, self.wire = runner, channel
        self.known: set[str] = set()
        self._parts: dict[str, _Part] = {}
        runner.register_message(wire.HELLO, self._on_hello)
        runner.register_message(wire.READY, self._on_ready)
        runner.register_message(wire.JOURNAL, self._on_journal)

    def await_workers(self, expected: int) -> list[str]:
        """Ids of the connected workers that have shown the token, sorted as Locust sorts them.
        Waits a while for `expected` of them."""
        deadline = time.monotonic() + HELLO_S
        while len(found := self._present()) < expected and time.monotonic() < deadline:
            gevent.sleep(POLL_S)
        return found

    def hand_out(self, part: str, work: WorkFolder, plan: TrafficPlan, clients: list[str]) -> None:
        """Send each worker its share, wait until all have it, and start them together."""
        settings, context = work.settings(), work.context()
        workers = {client: _Worker(client, index) for index, client in enumerate(clients)}
        self._parts[part] = mine = _Part(work, workers)
        for worker in workers.values():
            sessions = worker_share(plan, worker.index, len(workers))
            share = wire.Share(part, worker.index, settings, context, sessions)
            self._send(wire.SHARE, worker.client, share)
        if not mine.ready.wait(HELLO_S):
            logger.error("not every worker has taken its share of the plan")
        work.begin(START_LEAD_S)
        for worker in workers.values():
            self._send(wire.GO, worker.client, wire.Go(part, START_LEAD_S))

    def is_over(self) -> bool:
        """Whether every worker of every part is done or missing."""
        return bool(self._parts) and not any(self._unfinished())

    def collect(self) -> None:
        """End what still runs, and wait until its records have come, or its worker is missing."""
        for part, worker in self._unfinished():
            self._send(wire.STOP, worker.client, wire.Part(part))
        deadline = time.monotonic() + COLLECT_S
        while self._unfinished() and time.monotonic() < deadline:
            gevent.sleep(POLL_S)
        for part, worker in self._unfinished():
            logger.error("worker %d of %s did not send all its records", worker.index, part or "it")
        self._parts.clear()

    def _unfinished(self) -> list[tuple[str, _Worker]]:
        return [
            (name, worker)
            for name, part in self._parts.items()
            for worker in part.workers.values()
            if not worker.is_done and self._is_present(worker.client)
        ]

    def _present(self) -> list[str]:
        return sorted(client for client in self.known if self._is_present(client))

    def _is_present(self, client: str) -> bool:
        node = self.runner.clients.get(client)
        return node is not None and node.state != STATE_MISSING

    def _send(self, kind: str, client: str, content: Any) -> None:
        self.runner.send_message(kind, self.wire.seal(kind, client, content), client)

    def _on_hello(self, environment: Any, msg: Any, **_: Any) -> None:
        try:
            self.wire.open(wire.HELLO, msg.node_id, msg.data, wire.Hello)
        except wire.Refused as refused:
            logger.error("%s: it takes no part (set the same $%s)", refused, TOKEN_VARIABLE)
        else:
            self.known.add(msg.node_id)

    def _on_ready(self, environment: Any, msg: Any, **_: Any) -> None:
        ready = self._opened(wire.READY, msg, wire.Part)
        if ready is None:
            return
        part = self._parts[ready.part]
        part.workers[msg.node_id].is_ready = True
        if all(worker.is_ready for worker in part.workers.values()):
            part.ready.set()

    def _on_journal(self, environment: Any, msg: Any, **_: Any) -> None:
        """Take what is new, and acknowledge what is on disk."""
        chunk = self._opened(wire.JOURNAL, msg, wire.Chunk)
        if chunk is None:
            return
        part = self._parts[chunk.part]
        worker = part.workers[msg.node_id]
        ack = take_chunk(part.work, worker.index, chunk, is_done=worker.is_done)
        worker.is_done = ack.closed
        self._send(wire.ACK, msg.node_id, ack)

    def _opened(self, kind: str, msg: Any, type_: type[wire.T]) -> wire.T | None:
        """A message about a part that its sender has a share of; None (and a line) for others."""
        try:
            content = self.wire.open(kind, msg.node_id, msg.data, type_)
        except wire.Refused as refused:
            logger.error("%s", refused)
            return None
        part = self._parts.get(content.part)  # type: ignore[attr-defined]
        return content if part is not None and msg.node_id in part.workers else None
