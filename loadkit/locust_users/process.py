"""Locust as a child process: its own process group, ended whatever happens. No locust import."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from loadkit.client.secret import KEY_VARIABLES, Secret
from loadkit.core.errors import CannotMeasure
from loadkit.locust_users.settings import WORK_VARIABLE, Settings, WorkFolder

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
WORKER_LOCUSTFILE = Path(__file__).with_name("worker_locustfile.py")
TOKEN_VARIABLE = "LOADKIT_TOKEN"
Address = tuple[str, int]
STOP_GRACE_S = 5.0
# A worker gives up when nobody has listened at its master's address for so long.
MASTER_S = 10.0
POLL_S = 0.25
LOG_TAIL_BYTES = 4000


class LocustProcess:
    """`locust -f locustfile.py` for one working folder; a context manager that ends it.

    The API key travels in the environment alone. Locust's log goes to `locust.log`.
    """

    def __init__(
        self,
        work: WorkFolder,
        settings: Settings,
        *,
        key: Secret | None,
        web: Address = ("127.0.0.1", 8089),
        master: Address | None = None,
        token: str | None = None,
    ):
        """master: where workers from elsewhere find it, with the token that they must show."""
        self.work = work
        self._command = _command(settings, web, master)
        self._environment = _environment(work, key, token)

    def __enter__(self) -> LocustProcess:
        with self.work.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.work.path,  # a locust.conf of the caller's folder must not apply
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float) -> int | None:
        """Exit code, or None when it still runs after `timeout_s`."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """SIGTERM to the parent, which tells its workers; then SIGKILL to all that is left."""
        if self.exit_code() is None:
            self._process.terminate()
            self.wait(STOP_GRACE_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def log_tail(self) -> str:
        """End of Locust's log, for a failure's message."""
        text = self.work.log.read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace")
        return "\n".join(text.splitlines()[-12:])


def _command(settings: Settings, web: Address, master: Address | None) -> list[str]:
    users = settings.users if settings.loop == "closed" else settings.processes
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--host", settings.url]
    command += ["--users", str(users), "--spawn-rate", str(users), "--exit-code-on-error", "0"]
    if settings.web:
        command += ["--web-host", web[0], "--web-port", str(web[1])]
    else:
        command += ["--headless", "--only-summary"]
    if master is not None:
        command += ["--master", "--expect-workers", str(settings.processes)]
        command += ["--master-bind-host", master[0], "--master-bind-port", str(master[1])]
    elif settings.processes > 1:
        port = str(free_port())
        command += ["--processes", str(settings.processes)]
        command += ["--master-bind-host", "127.0.0.1", "--master-bind-port", port]
        command += ["--master-host", "127.0.0.1", "--master-port", port]
    return command


def run_worker(master: Address, key: Secret | None, token: str) -> int:
    """A worker of a run that is mastered elsewhere: Locust in this process's stead, its exit code.

    Records that the master did not get stay in the current folder, and the log says where.
    CannotMeasure: nobody listens at `master`.
    """
    _await_master(master)
    command = [sys.executable, "-m", "locust", "-f", str(WORKER_LOCUSTFILE), "--worker"]
    command += [
        "--master-host",
        master[0],
        "--master-port",
        str(master[1]),
        "--loglevel",
        "WARNING",
    ]
    environment = _clean_environment(key) | {TOKEN_VARIABLE: token}
    return subprocess.run(command, env=environment, check=False).returncode


def _await_master(master: Address) -> None:
    """Return once somebody listens there. Locust would try for minutes, without a word."""
    deadline = time.monotonic() + MASTER_S
    while True:
        try:
            socket.create_connection(master, timeout=MASTER_S).close()
            return
        except OSError as error:
            if time.monotonic() > deadline or isinstance(error, socket.gaierror):
                raise CannotMeasure(
                    f"no run waits for workers at {master[0]}:{master[1]}: {error.strerror or error}",
                    remedy="start it first: loadkit run PROFILE --url URL -o DIR --master",
                ) from error
        time.sleep(POLL_S)


def _environment(work: WorkFolder, key: Secret | None, token: str | None) -> dict[str, str]:
    added = {WORK_VARIABLE: str(work.path)} | ({} if token is None else {TOKEN_VARIABLE: token})
    return _clean_environment(key) | added


def _clean_environment(key: Secret | None) -> dict[str, str]:
    """Ours without Locust's own variables, which could change the run, and without other keys."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("LOCUST_")
        and name not in (*KEY_VARIABLES, WORK_VARIABLE, TOKEN_VARIABLE)
    }
    if key is not None:
        kept[KEY_VARIABLES[0]] = key.reveal()
    return kept


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
