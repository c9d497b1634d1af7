"""Starts llama.cpp's own HTTP server as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVER = Path(__file__).with_name("llamacpp_server.py")


@contextmanager
def llamacpp_server(
    model: Path, log: Path, slots: int | None = None, *, context: int | None = None
) -> Iterator[str]:
    """The server's URL; its output goes to `log`. `slots`: as in llamacpp_server.py. context: tokens
    of one slot."""
    context = context or (2048 if slots is None else 512)
    command = [sys.executable, str(SERVER), str(model), str(context)]
    command += [] if slots is None else [str(slots)]
    pipe = subprocess.PIPE
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=output) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        lines = iter(process.stdout.readline, b"")
        address = next(line for line in lines if b"address " in line)
        try:
            yield address.split(b"address ")[1].split()[0].decode()
        finally:
            process.stdin.close()
            process.wait(20)
