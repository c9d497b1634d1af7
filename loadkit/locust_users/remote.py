"""A worker that gets its share of the plan from a master, and sends its journal back.

Its records are first in a journal of its own, on its own disk, and then on the master's: what a
dying network or master leaves behind stays there, and the log says where.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import WorkerRunner

from loadkit.locust_users import wire
from loadkit.locust_users.dispatcher import Dispatcher
from loadkit.locust_users.load import make_dispatcher
from loadkit.locust_users.process import TOKEN_VARIABLE
from loadkit.locust_users.session import STOPPED
from loadkit.locust_users.settings import WorkFolder
from loadkit.locust_users.shipping import Send, Shipper
from loadkit.locust_users.work import WORKER_PREFIX
from loadkit.traffic.plan import TrafficPlan, write_plan

MASTER_SILENT_S = 4.0
POLL_S = 0.5
WELCOME_S = 10.0
EXIT_NOT_MEASURED = 3

logger = logging.getLogger(__name__)


class RemotePart:
    """One share under way on this worker."""

    def __init__(self, share: wire.Share, environment: Environment, send: Send):
        self.share, self._environment, self._send = share, environment, send
        self.folder = Path(tempfile.mkdtemp(prefix=WORKER_PREFIX, dir=Path.cwd()))
        self.work = WorkFolder(self.folder)
        self.work.hold()
        self.work.create(share.settings)
        self.work.write_context(share.context)
        write_plan(TrafficPlan(share.context.kind, share.sessions), self.work.plan)
        self.dispatcher: Dispatcher | None = None
        self.shipper: Shipper | None = None

    def go(self, lead_s: float) -> None:
        """Start the clock. An open loop runs by itself, a closed one when users come."""
        self.dispatcher = make_dispatcher(
            self.work,
            self.share.sessions,
            self._environment,
            worker=self.share.worker,
            lead_s=lead_s,
            on_finish=lambda: None,
        )
        self.shipper = Shipper(self.share, self.dispatcher.worker, self._send)
        gevent.spawn(self.shipper.run)

    def stop(self) -> None:
        if self.dispatcher is not None:
            self.dispatcher.stop(STOPPED)

    def remove(self) -> None:
        """The master has it all."""
        shutil.rmtree(self.folder, ignore_errors=True)


class RemoteWorker:
    """Listens to the master; `load_for(part)` is what a user class plays from."""

    def __init__(self, environment: Environment, channel: wire.Wire):
        self.environment, self.wire = environment, channel
        self.runner: WorkerRunner = environment.runner
        self._parts: dict[str, RemotePart] = {}
        self._going: dict[str, Event] = {}
        for kind, listener in (
            (wire.WELCOME, self._on_welcome),
            (wire.REFUSED, self._on_refused),
            (wire.SHARE, self._on_share),
            (wire.GO, self._on_go),
            (wire.ACK, self._on_ack),
            (wire.STOP, self._on_stop),
        ):
            self.runner.register_message(kind, listener)
        self._heard_at = time.monotonic()
        environment.events.heartbeat_received.add_listener(self._on_heartbeat)
        self._welcome = Event()
        gevent.spawn(self._introduce)
        gevent.spawn(self._watch_master)

    def load_for(self, part: str) -> RemoteLoad:
        return RemoteLoad(self, part)

    def await_part(self, part: str) -> RemotePart | None:
        """The part once it has started; None if the master gave this worker no share of it."""
        self._going.setdefault(part, Event()).wait()
        return self._parts.get(part)

    def _send(self, kind: str, content: Any) -> None:
        client = self.runner.client_id
        self.runner.send_message(kind, self.wire.seal(kind, client, content))

    def _introduce(self) -> None:
        """Show the token until the master has seen it: its Locust may listen before it does."""
        deadline = time.monotonic() + WELCOME_S
        while not self._welcome.is_set() and time.monotonic() < deadline:
            self._send(wire.HELLO, wire.Hello())
            self._welcome.wait(POLL_S)
        if not self._welcome.is_set():
            self._give_up(f"no loadkit run answers at {self._master}; is it a plain Locust master?")

    @property
    def _master(self) -> str:
        return f"{self.runner.master_host}:{self.runner.master_port}"

    def _on_welcome(self, environment: Any, msg: Any, **_: Any) -> None:
        if self._opened(wire.WELCOME, msg, wire.Welcome) is not None:
            self._welcome.set()

    def _on_refused(self, environment: Any, msg: Any, **_: Any) -> None:
        """Nobody need have sealed this; a run that has begun goes on."""
        if not self._welcome.is_set():
            where = f"the run at {self._master}"
            self._give_up(
                f"{where} has another token; set the same ${TOKEN_VARIABLE} here and there"
            )

    def _give_up(self, why: str) -> None:
        print(f"loadkit: {why}", file=sys.stderr, flush=True)
        os._exit(EXIT_NOT_MEASURED)

    def _opened(self, kind: str, msg: Any, type_: type[wire.T]) -> wire.T | None:
        try:
            return self.wire.open(kind, self.runner.client_id, msg.data, type_)
        except wire.Refused as refused:
            logger.error("the master is not ours: %s", refused)
            return None

    def _on_share(self, environment: Any, msg: Any, **_: Any) -> None:
        share = self._opened(wire.SHARE, msg, wire.Share)
        if share is None:
            return
        self._going[share.part] = Event()
        self._parts[share.part] = RemotePart(share, self.environment, self._send)
        self._send(wire.READY, wire.Part(share.part))

    def _on_go(self, environment: Any, msg: Any, **_: Any) -> None:
        go = self._opened(wire.GO, msg, wire.Go)
        if go is None or go.part not in self._parts:
            return
        part = self._parts[go.part]
        part.go(go.lead_s)
        self._going.setdefault(go.part, Event()).set()
        if part.share.settings.loop == "open" or not part.share.sessions:
            gevent.spawn(self._drive, part)

    def _drive(self, part: RemotePart) -> None:
        """An open loop needs no Locust user: its own plays the schedule."""
        name = part.share.part
        for user_class in self.environment.user_classes:
            if name in ("", user_class.__name__) and part.dispatcher is not None:
                part.dispatcher.drive(user_class(self.environment).play)
                return

    def _on_ack(self, environment: Any, msg: Any, **_: Any) -> None:
        ack = self._opened(wire.ACK, msg, wire.Ack)
        part = None if ack is None else self._parts.get(ack.part)
        if ack is None or part is None or part.shipper is None:
            return
        part.shipper.on_ack(ack)
        if ack.closed:
            part.remove()

    def _on_stop(self, environment: Any, msg: Any, **_: Any) -> None:
        stop = self._opened(wire.STOP, msg, wire.Part)
        part = None if stop is None else self._parts.get(stop.part)
        if part is not None:
            gevent.spawn(part.stop)

    def _on_heartbeat(self, **_: Any) -> None:
        self._heard_at = time.monotonic()

    def _watch_master(self) -> None:
        """Stop within 5 s of losing the master. A stall of our own is no silence of the master."""
        last = time.monotonic()
        while True:
            gevent.sleep(POLL_S)
            now = time.monotonic()
            if now - last > 2 * POLL_S:
                self._heard_at = now
            last = now
            if now - self._heard_at > MASTER_SILENT_S and self.runner.connection_event.is_set():
                self._leave()

    def _leave(self) -> None:
        logger.error("the master has gone; stopping")
        for part in self._parts.values():
            if part.dispatcher is not None:
                part.dispatcher.worker.is_orphaned = True
            part.stop()
            if part.folder.exists():
                logger.error("records that it does not have are kept in %s", part.folder)
        os._exit(EXIT_NOT_MEASURED)


class RemoteLoad:
    """What a user class asks for its dispatcher, on a worker."""

    def __init__(self, remote: RemoteWorker, part: str):
        self._remote, self._part = remote, part

    def dispatcher(self, environment: Environment) -> Dispatcher:
        part = self._remote.await_part(self._part)
        if part is None or part.dispatcher is None:
            raise StopUser
        return part.dispatcher
