"""The load in one process and Locust's events around it: start, end, and a parent that is gone."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any

import gevent
from locust.env import Environment
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

from loadkit.client.collector import calm_collector
from loadkit.client.guard import REWRITTEN
from loadkit.client.stream import NO_CONNECTION
from loadkit.locust_users import web_tab
from loadkit.locust_users.dispatcher import Dispatcher
from loadkit.locust_users.master import Master
from loadkit.locust_users.metrics_page import serve_metrics
from loadkit.locust_users.session import STOPPED, sleep_until
from loadkit.locust_users.settings import WorkFolder
from loadkit.locust_users.wire import Wire
from loadkit.locust_users.worker import LoadWorker
from loadkit.runs.journal import Head
from loadkit.runs.record import Record
from loadkit.traffic.plan import SessionPlan, read_plan, worker_share

DONE_MESSAGE = "loadkit_done"
POLL_S = 0.25
# Workers hear of the start one after the other; the schedule begins when all have.
START_LEAD_S = 0.3
ATTEMPTED = (NO_CONNECTION, REWRITTEN)

logger = logging.getLogger(__name__)


class RequestFailed(Exception):
    """What Locust counts as the failure of a request: outcome and status, never server text."""


class Load:
    """The run that the launcher described in the working folder, in this process's share."""

    def __init__(self, work: WorkFolder):
        self.work = work
        self.settings = work.settings()
        self.plan = read_plan(work.plan)
        self._dispatcher: Dispatcher | None = None
        self._done_clients: set[str] = set()
        self._is_quitting = False

    def on_init(self, environment: Environment, **_: Any) -> None:
        """Locust's `init` event: in every process, before any user."""
        web_tab.install(environment, self.settings.expected_hit_rate)
        gevent.spawn(self._watch_parent)
        if self.settings.metrics_port and not isinstance(environment.runner, WorkerRunner):
            serve_metrics(self.settings.metrics_port)
        if isinstance(environment.runner, MasterRunner) and self.settings.remote:
            self._master_elsewhere(environment)
        elif isinstance(environment.runner, MasterRunner):
            environment.runner.register_message(DONE_MESSAGE, self._on_done)
            gevent.spawn(self._await_workers, environment)

    def dispatcher(self, environment: Environment) -> Dispatcher:
        """This process's dispatcher, made when its first user starts."""
        if self._dispatcher is None:
            index = environment.runner.worker_index
            self._dispatcher = make_dispatcher(
                self.work,
                worker_share(self.plan, index, self.settings.processes),
                environment,
                worker=index,
                lead_s=START_LEAD_S,
                on_finish=lambda: self._on_finish(environment),
            )
        return self._dispatcher

    def _on_finish(self, environment: Environment) -> None:
        runner = environment.runner
        if isinstance(runner, WorkerRunner):
            runner.send_message(DONE_MESSAGE)
        else:
            gevent.spawn(self._end, environment)

    def _on_done(self, environment: Environment, msg: Any, **_: Any) -> None:
        self._done_clients.add(msg.node_id)

    def _await_workers(self, environment: Environment) -> None:
        """Master: the run ends when each worker is done or missing, and at least one is done."""
        clients = environment.runner.clients
        while True:
            gevent.sleep(POLL_S)
            waiting = {
                client.id
                for client in clients.all
                if client.state != STATE_MISSING and client.id not in self._done_clients
            }
            if self._done_clients and not waiting:
                self._end(environment)
                self._done_clients.clear()

    def _master_elsewhere(self, environment: Environment) -> None:
        """Workers that we did not start: deal the plan when the test starts, collect at its end."""
        master = Master(environment.runner, Wire(), self.work.note)

        def start(**_: Any) -> None:
            if self.work.started() is not None:  # again, in the web interface: sent once
                return
            clients = master.await_workers(self.settings.processes)[: self.settings.processes]
            master.hand_out("", self.work, self.plan, clients)

        def watch() -> None:
            while not master.is_over():
                gevent.sleep(POLL_S)
            self._end(environment)

        environment.events.test_start.add_listener(start)
        environment.events.test_stop.add_listener(lambda **_: master.collect())
        gevent.spawn(watch)

    def _end(self, environment: Environment) -> None:
        """Headless: leave. With the web interface: stop, and leave it open for reading."""
        if self.settings.web:
            environment.runner.stop()
        elif not self._is_quitting:
            self._is_quitting = True
            environment.runner.quit()

    def _watch_parent(self) -> None:
        """Stop when whoever started this process has died, so that no worker is left behind."""
        parent = os.getppid()
        while os.getppid() == parent:
            gevent.sleep(POLL_S)
        logger.error("the parent process has gone; stopping")
        if self._dispatcher is not None:
            self._dispatcher.worker.is_orphaned = True
            self._dispatcher.stop(STOPPED)
        os._exit(1)


def make_dispatcher(
    work: WorkFolder,
    sessions: tuple[SessionPlan, ...],
    environment: Environment,
    *,
    worker: int,
    lead_s: float,
    on_finish: Callable[[], None],
) -> Dispatcher:
    """A worker's dispatcher of `sessions`, whose times count from `lead_s` from now, or from the
    start that another worker of the same folder has set."""
    calm_collector()
    start = work.begin(lead_s)
    start_at = start.monotonic_s
    load_worker = LoadWorker(
        work,
        work.settings(),
        sessions,
        worker=worker,
        start_at=start_at,
        report=lambda record: fire_request(environment, record, start_at),
        head=Head(work.context(), start),
    )
    gevent.spawn(_observe_stalls, load_worker)
    return Dispatcher(load_worker, on_finish)


def _observe_stalls(worker: LoadWorker) -> None:
    """From the run's start: until then users are made, which holds nothing up that matters."""
    sleep_until(worker.lane.start_at)
    worker.monitor.run()


def fire_request(environment: Environment, record: Record, start_at: float) -> None:
    """Locust's `request` event: once a request, when it has ended, failed unless it is ok.

    response_time counts from the intended time, in ms. A request that was never attempted, because
    its session or the run ended before, is none to Locust. What is not measured has a name of its
    own in Locust's statistics, so that it is in no figure of the measurement's.
    """
    if record.outcome == "not_sent" and not (record.error or "").startswith(ATTEMPTED):
        return
    e2e_s = record.e2e_s
    if e2e_s is None:
        e2e_s = time.monotonic() - start_at - record.intended_s
    environment.events.request.fire(
        request_type="POST",
        name=record.name if record.phase == "measured" else f"{record.name} ({record.phase})",
        response_time=1000 * e2e_s,
        response_length=len(record.reply),
        exception=_failure(record),
        context={},
    )


def _failure(record: Record) -> RequestFailed | None:
    if record.outcome == "ok":
        return None
    status = f" {record.status}" if record.outcome == "http_error" else ""
    return RequestFailed(record.outcome + status)
