"""The reference server as a child process that never outlives the demo."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from loadkit.client.secret import KEY_VARIABLES
from loadkit.core.errors import CannotMeasure

READY = "ready on "
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 10.0


@contextmanager
def reference_server(
    log: Path, *, model: str | None, num_blocks: int, block_size: int, say: Callable[[str], None]
) -> Iterator[str]:
    """Start `loadkit serve` on a free loopback port; yields its URL once it is healthy.

    Whatever happens inside, the process is ended afterwards; it also ends by itself when this
    process dies. Its output goes to `log`. Raises CannotMeasure if it does not become ready.
    """
    command = [sys.executable, "-m", "loadkit", "serve", "--port", "0", "--exit-with-parent"]
    command += ["--num-blocks", str(num_blocks), "--block-size", str(block_size)]
    command += ["--model", model] if model else []
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,
        )
    try:
        yield _wait_ready(process, log, say)
    finally:
        _stop(process)


def _environment() -> dict[str, str]:
    """Ours without keys: the user's key is for another server, and this one shall ask for none."""
    kept = {name: value for name, value in os.environ.items() if name not in KEY_VARIABLES}
    return {**kept, "PYTHONUNBUFFERED": "1"}


def _wait_ready(process: subprocess.Popen[bytes], log: Path, say: Callable[[str], None]) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    said = ""
    while time.monotonic() < deadline:
        lines = log.read_text("utf-8", "replace").splitlines()
        for line in lines:
            if READY in line:
                return line.split(READY, 1)[1].split()[0]
        if lines and lines[-1] != said:
            said = lines[-1]
            say(said)
        if process.poll() is not None:
            break
        time.sleep(0.2)
    tail = "\n".join(log.read_text("utf-8", "replace").splitlines()[-5:])
    raise CannotMeasure(
        f"the reference server did not start: {tail or 'it printed nothing'}",
        remedy=f"its whole output is in {log}",
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    killer = threading.Timer(STOP_TIMEOUT_S, process.kill)
    killer.start()
    try:
        process.wait()
    finally:
        killer.cancel()
