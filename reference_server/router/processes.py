"""The engine processes behind the router: started, waited for, ended with it."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loadkit.core.errors import InputError

COMMAND = (sys.executable, "-c", "from loadkit.cli import main; main()", "serve")
# Each takes a free port of this machine alone, and ends when the router does, even when that is killed.
OWN_OPTIONS = ("--host", "127.0.0.1", "--port", "0", "--exit-with-parent")
READY = re.compile(r"^loadkit serve: ready on (http://\S+)$")
# A replica drains for up to 30 s by itself.
END_S = 35.0


@dataclass(slots=True)
class ReplicaProcess:
    """One `loadkit serve`; `url` is there once it is ready."""

    index: int
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, index: int, options: Sequence[str], command: Sequence[str]) -> ReplicaProcess:
        arguments = [*command, *options, *OWN_OPTIONS]
        return cls(index, subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True))

    def wait_ready(self) -> str:
        """Its URL. InputError if it ended instead; it has said why on stderr."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            ready = READY.match(line.strip())
            if ready:
                return ready[1]
        code = self.process.wait()
        raise InputError(
            f"replica {self.index} ended with exit code {code} before it was ready",
            where="--replicas",
            remedy="its own message is above",
        )

    def end(self) -> None:
        """It drains; killed if that takes too long."""
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextlib.contextmanager
def replicas(
    options: Sequence[Sequence[str]], command: Sequence[str] = COMMAND
) -> Iterator[list[str]]:
    """URLs of one ready process for each list of options. All have ended when it is left.

    The first is ready before the others start: it prepares what they then find, such as the
    converted default model.
    """
    started: list[ReplicaProcess] = []
    try:
        started.append(ReplicaProcess.start(0, options[0], command))
        urls = [started[0].wait_ready()]
        for index, own in enumerate(options[1:], 1):
            started.append(ReplicaProcess.start(index, own, command))
        urls += [process.wait_ready() for process in started[1:]]
        yield urls
    finally:
        for process in started:
            process.process.terminate()
        for process in started:
            process.end()
