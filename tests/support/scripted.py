"""Starts the scripted server as a process of its own and reads its log of the truth."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVER = Path(__file__).with_name("scripted_server.py")


@dataclass
class Scripted:
    url: str
    log: Path

    def truth(self) -> list[dict[str, Any]]:
        """One row a chat request, in the order in which they ended."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def truth_of(self, requests: int, within_s: float = 120.0) -> list[dict[str, Any]]:
        """The truth once so many requests are in it: the server writes a row after its last byte,
        which the client may have read already. After `within_s` whatever is there."""
        deadline = time.monotonic() + within_s
        while len(rows := self.truth()) < requests and time.monotonic() < deadline:
            time.sleep(0.02)
        return rows


@contextmanager
def scripted_server(folder: Path, *options: str) -> Iterator[Scripted]:
    log = folder / "truth.jsonl"
    command = [sys.executable, str(SERVER), "--log", str(log), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())
        try:
            yield Scripted(f"http://127.0.0.1:{port}", log)
        finally:
            process.stdin.close()
            process.wait(10)
