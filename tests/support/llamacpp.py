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
    model: Path,
    log: Path,
    slots: int = 1,
    *,
    context: int = 2048,
    host_mib: int = 8192,
    unified: bool = False,
) -> Iterator[str]:
    """The server's URL; its output goes to `log`. context: tokens of one slot. host_mib: prompt cache
    in host memory, llama.cpp's own default. unified: one buffer for all slots."""
    command = [sys.executable, str(SERVER), str(model), str(context), str(slots), str(host_mib)]
    command += ["unified"] if unified else []
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
