"""Starts `loadkit serve` as a process of its own, and ends it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

LOADKIT = [sys.executable, "-c", "from loadkit.cli import main; main()"]
READY = re.compile(r"^loadkit serve: ready on (http://\S+)$")
API_KEY_VARIABLE = "LOADKIT_API_KEY"


@dataclass
class Served:
    url: str
    process: subprocess.Popen[str]


@contextmanager
def serving(*options: str, api_key: str | None = None) -> Iterator[Served]:
    """A ready server on a free port; it is terminated, and killed if that takes over 40 s."""
    env = {k: v for k, v in os.environ.items() if k != API_KEY_VARIABLE}
    if api_key:
        env[API_KEY_VARIABLE] = api_key
    command = [*LOADKIT, "serve", "--port", "0", "--exit-with-parent", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            assert process.stdout is not None
            ready = READY.match(process.stdout.readline().strip())
            assert ready, "the server said nothing"
            yield Served(ready[1], process)
        finally:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
