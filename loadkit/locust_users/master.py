"""The master's side of a run on several machines: deals the plan, collects the journals.

The working folder ends up as after a run with local workers, so everything later is the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
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
    """Talks to the workers that know the token. Nothing that others send reaches Locust, so they do
    not count as workers, get no share and no users, and change nothing when they leave.

    note: told once of each stranger.
    """

    def __init__(
        self, runner: MasterRunner, channel: wire.Wire, note: Callable[[str], None] = logger.error
    ):
        self.runner, self.wire, self._note = runner, channel, note
        self.known: set[str] = set()
        self._waiting: dict[str, Any] = {}  # Locust's first message of who has not said hello yet
        self._named: set[str] = set()
        self._parts: dict[str, _Part] = {}
        self._to_locust = runner.handle_message
        runner.handle_message = self._admit
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

    def _admit(self, client: str, msg: Any) -> None:
        """Locust's `handle_message`: what every message of a worker comes through first. `client` is
        the sender as the connection knows it, `msg.node_id` as it calls itself."""
        if msg.type == wire.HELLO:
            self._on_hello(client, msg)
        elif client in self.known and msg.node_id == client:
            self._to_locust(client, msg)
        elif msg.type == "client_ready" and client not in self._waiting:
            self._waiting[client] = msg
            self.runner.send_message("ack", client_id=client)  # it says hello once it has this
            gevent.spawn_later(HELLO_S, self._name_stranger, client, "showed no token")

    def _on_hello(self, client: str, msg: Any) -> None:
        try:
            self.wire.open(wire.HELLO, client, msg.data, wire.Hello)
        except wire.Refused:
            self.runner.send_message(wire.REFUSED, client_id=client)
            self._name_stranger(client, "showed another token than this run's")
            return
        is_new = client not in self.known
        self.known.add(client)
        self._send(wire.WELCOME, client, wire.Welcome())
        if is_new and client in self._waiting:
            self._to_locust(client, self._waiting.pop(client))

    def _name_stranger(self, client: str, what: str) -> None:
        if client in self.known or client in self._named:
            return
        self._named.add(client)
        self._note(
            f"a Locust worker, {client[:80]!r}, {what}; it takes no part"
            f" (set the same ${TOKEN_VARIABLE} here and there)"
        )

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
