"""A user's own locustfile: what happens around a test when its user classes come from loadkit.

Whoever starts the test (one process alone, or the master) plans in a process beside it, plays or
deals out the plan, and has the run folder made at the end, one for each user class. The folder is
--loadkit-out or $LOADKIT_OUT, else below `loadkit-runs` in the current directory.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
import msgspec
from locust import events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadkit.locust_users import web_tab
from loadkit.locust_users.dispatcher import Dispatcher
from loadkit.locust_users.load import POLL_S, START_LEAD_S, make_dispatcher
from loadkit.locust_users.master import Master
from loadkit.locust_users.remote import RemoteWorker
from loadkit.locust_users.session import STOPPED
from loadkit.locust_users.settings import WORK_VARIABLE, WorkFolder
from loadkit.locust_users.users import LoadkitUser
from loadkit.locust_users.wire import Wire
from loadkit.runs.summary import error_words
from loadkit.traffic.plan import read_plan

OUT_VARIABLE = "LOADKIT_OUT"
RUNS = "loadkit-runs"
EXIT_INVALID = 3

logger = logging.getLogger(__name__)
# Made when the locustfile is imported, before `--processes` forks: those workers share its token.
_channel = Wire()
_connected: list[bool] = []

UserClass = type[LoadkitUser]


def connect_once() -> None:
    """Listen to Locust's events, the first time a locustfile asks for a user class."""
    if not _connected and WORK_VARIABLE not in os.environ:
        _connected.append(True)
        events.init_command_line_parser.add_listener(add_options)
        events.init.add_listener(connect)


def add_options(parser: Any) -> None:
    """Locust's `init_command_line_parser` event."""
    parser.add_argument(
        "--loadkit-out",
        env_var=OUT_VARIABLE,
        default="",
        metavar="DIR",
        help="Run folder to make; with several user classes, the folder that theirs are made in.",
        include_in_web_ui=False,
    )


def connect(environment: Environment, **_: Any) -> None:
    """Locust's `init` event, in every process."""
    web_tab.install(environment)
    classes = _every_class(environment)
    if isinstance(environment.runner, WorkerRunner):
        remote = RemoteWorker(environment, _channel)
        for user_class in classes:
            user_class.load = remote.load_for(user_class.__name__)
    elif environment.runner is not None:
        test = OwnTest(environment)
        environment.events.test_start.add_listener(test.start)
        environment.events.test_stop.add_listener(test.finish)


def _every_class(environment: Environment) -> list[UserClass]:
    """Ours among all user classes, picked or not."""
    known = environment.available_user_classes or {}
    return _ours([*environment.user_classes, *known.values()])


def _ours(classes: list[type]) -> list[UserClass]:
    return [one for one in dict.fromkeys(classes) if issubclass(one, LoadkitUser)]


class LocalLoad:
    """All sessions of one user class, in this process."""

    def __init__(self, work: WorkFolder, on_finish: Any):
        self._work, self._on_finish = work, on_finish
        self._dispatcher: Dispatcher | None = None

    def dispatcher(self, environment: Environment) -> Dispatcher:
        if self._dispatcher is None:
            self._dispatcher = make_dispatcher(
                self._work,
                read_plan(self._work.plan).sessions,
                environment,
                worker=0,
                lead_s=START_LEAD_S,
                on_finish=self._on_finish,
            )
        return self._dispatcher

    @property
    def is_over(self) -> bool:
        return self._dispatcher is not None and self._dispatcher.finished.is_set()

    def stop(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.stop(STOPPED)


@dataclass
class _Run:
    """One user class's part of the test under way."""

    user_class: UserClass
    work: WorkFolder
    out: Path
    local: LocalLoad | None = None


class OwnTest:
    """The process that starts tests: alone, or the master of others."""

    def __init__(self, environment: Environment):
        self.environment = environment
        self.master: Master | None = None
        if isinstance(environment.runner, MasterRunner):
            self.master = Master(environment.runner, _channel)
            gevent.spawn(self._await_workers)
        self._runs: list[_Run] = []

    def start(self, **_: Any) -> None:
        """Locust's `test_start`: plan, and deal out or get ready."""
        classes = _ours(self.environment.user_classes)
        clients = self._clients()
        stamp = time.strftime("%Y%m%d-%H%M%S")
        try:
            for user_class in classes:
                out = self._out(user_class, stamp, single=len(classes) == 1)
                self._runs.append(self._prepared(user_class, out, len(clients)))
        except _AsideFailed as failed:
            self._refuse(classes, failed)
            return
        for run in self._runs:
            self._begin(run, clients)

    def finish(self, **_: Any) -> None:
        """Locust's `test_stop`: end what runs, and make the folders."""
        if self.master is not None:
            self.master.collect()
        for run in self._runs:
            if run.local is not None:
                run.local.stop()
        runs, self._runs = self._runs, []
        for run in runs:
            self._write(run)

    def _clients(self) -> list[str]:
        if self.master is None:
            return []
        runner = self.environment.runner
        return self.master.await_workers(runner.worker_count)

    def _prepared(self, user_class: UserClass, out: Path, num_workers: int) -> _Run:
        spec = {
            "user_class": user_class.__name__,
            "profile": user_class.profile or "",
            "url": self.environment.host or user_class.host or "",
            "out": str(out),
            "overrides": tuple(user_class.overrides),
            "kinds": user_class.kinds,
            "model": user_class.model,
            "tokenizer": user_class.tokenizer,
            "block_size": user_class.block_size,
            "processes": max(1, num_workers),
            "beside": [c.__name__ for c in self.environment.user_classes if c is not user_class],
            "web": self.environment.web_ui is not None,
        }
        work = WorkFolder(Path(_aside("prepare", data=msgspec.json.encode(spec)).decode().strip()))
        work.hold()
        return _Run(user_class, work, out)

    def _begin(self, run: _Run, clients: list[str]) -> None:
        if self.master is None:
            run.local = LocalLoad(run.work, self._on_finish)
            run.user_class.load = run.local
            return
        settings = run.work.settings()
        if settings.loop == "closed":  # a worker without a user would play nothing
            clients = clients[: max(1, self.environment.runner.target_user_count)]
            context = run.work.context()
            context.processes = len(clients)
            run.work.write_context(context)
        self.master.hand_out(run.user_class.__name__, run.work, read_plan(run.work.plan), clients)

    def _on_finish(self) -> None:
        if all(run.local is not None and run.local.is_over for run in self._runs):
            gevent.spawn(self._end)

    def _await_workers(self) -> None:
        while True:
            gevent.sleep(POLL_S)
            if self._runs and self.master is not None and self.master.is_over():
                self._end()

    def _end(self) -> None:
        """All plans are played. Users that are not ours may go on."""
        environment = self.environment
        others = len(environment.user_classes) - len(_ours(environment.user_classes))
        if others or not self._runs:
            return
        if environment.web_ui is not None:
            environment.runner.stop()
        else:
            environment.runner.quit()

    def _refuse(self, classes: list[UserClass], failed: _AsideFailed) -> None:
        for user_class in classes:
            user_class.load = None
        for run in self._runs:  # prepared before the one that was refused; nothing is in it
            shutil.rmtree(run.work.path, ignore_errors=True)
        self._runs.clear()
        self.environment.process_exit_code = failed.code
        if self.environment.web_ui is None:
            gevent.spawn(self.environment.runner.quit)

    def _out(self, user_class: UserClass, stamp: str, *, single: bool) -> Path:
        """A path that is free: a second test of one process gets a number."""
        options = self.environment.parsed_options
        named = getattr(options, "loadkit_out", "") or ""
        if not named:
            return _free(Path(RUNS) / f"{user_class.__name__}-{stamp}")
        return _free(Path(named) if single else Path(named) / user_class.__name__)

    def _write(self, run: _Run) -> None:
        try:
            result = msgspec.json.decode(_aside("finish", str(run.work.path), str(run.out)))
        except _AsideFailed as failed:
            self.environment.process_exit_code = failed.code
            return
        counts, valid = result["requests"], result["status"] == "ok"
        said = f"{counts['ok']} of {counts['scheduled']} requests answered; run folder: {run.out}"
        print(f"loadkit: {run.user_class.__name__}: {said}", file=sys.stderr)
        for error in result["errors"][:3]:
            print(f"loadkit: {error['requests']} x {error_words(error)}", file=sys.stderr)
        for reason in result["reasons"]:
            print(f"loadkit: not valid: {reason['message']}", file=sys.stderr)
        if not valid and self.environment.process_exit_code is None:
            self.environment.process_exit_code = EXIT_INVALID


class _AsideFailed(Exception):
    """A step beside Locust failed; its own message is on stderr."""

    def __init__(self, code: int):
        self.code = code


def _aside(*arguments: str, data: bytes = b"") -> bytes:
    command = [sys.executable, "-m", "loadkit.locust_users.aside", *arguments]
    done = subprocess.run(command, input=data, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise _AsideFailed(done.returncode)
    return done.stdout


def _free(path: Path) -> Path:
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate
