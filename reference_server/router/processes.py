"""The engine processes behind the router: started, waited for, ended with it."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from loadkit.core.errors import InputError
from reference_server.listening import DRAIN_S, LAST_WORDS_S

COMMAND = (sys.executable, "-c", "from loadkit.cli import main; main()", "serve")
# Each takes a free port of this machine alone, and ends when the router does, even when that is killed.
OWN_OPTIONS = ("--host", "127.0.0.1", "--port", "0", "--exit-with-parent")
READY = re.compile(r"^loadkit serve: ready on (http://\S+)$")


@dataclass(slots=True)
class ReplicaProcess:
    """One `loadkit serve`, running from the first; end_s: how long it may take to drain."""

    index: int
    arguments: Sequence[str]
    end_s: float
    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Also once more, when it has ended."""
        self.process = subprocess.Popen(self.arguments, stdout=subprocess.PIPE, text=True)

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self.process.poll()

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

    def terminate(self) -> None:
        self.process.terminate()

    def end(self) -> None:
        """It drains; killed if that takes too long."""
        try:
            self.process.wait(self.end_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextlib.contextmanager
def replicas(
    options: Sequence[Sequence[str]], command: Sequence[str] = COMMAND, drain_s: float = DRAIN_S
) -> Iterator[tuple[list[ReplicaProcess], list[str]]]:
    """One ready process for each list of options, and their URLs. All have ended when it is left.

    The first is ready before the others start: it prepares what they then find, such as the
    converted default model. drain_s: how long each drains by itself.
    """
    started: list[ReplicaProcess] = []

    def start(own: Sequence[str]) -> ReplicaProcess:
        arguments = [*command, *own, *OWN_OPTIONS]
        started.append(ReplicaProcess(len(started), arguments, drain_s + LAST_WORDS_S))
        return started[-1]

    try:
        urls = [start(options[0]).wait_ready()]
        rest = [start(own) for own in options[1:]]
        urls += [process.wait_ready() for process in rest]
        yield started, urls
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.end()
