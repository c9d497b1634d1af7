"""Locust processes with a web interface, and a browser to look at them, for the tests."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from waiting import GENEROUS_S, answers, until

SUPPORT = Path(__file__).parents[1] / "support"
LIVE_LOCUSTFILE = SUPPORT / "live_locustfile.py"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    def is_up() -> bool:
        assert process.poll() is None, log.read_text()
        return answers(client)

    with httpx.Client(base_url=url) as client:
        until(is_up, f"no web interface at {url}")


@contextmanager
def locust_with_scripted_records(
    folder: Path, *options: str, path: str = "", **variables: str
) -> Iterator[tuple[httpx.Client, int]]:
    """Locust with `live_locustfile.py`. A client for its interface, and its process id."""
    port, log = free_port(), folder / "locust.log"
    command = [sys.executable, "-m", "locust", "-f", str(LIVE_LOCUSTFILE)]
    command += ["--web-port", str(port), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    base = f"http://127.0.0.1:{port}{path}"
    try:
        wait_until_up(base, process, log)
        with httpx.Client(base_url=base, timeout=GENEROUS_S) as client:
            yield client, process.pid
    finally:
        process.terminate()
        process.wait(GENEROUS_S)


def browse(url: str, *options: str) -> dict[str, Any]:
    """Start the test in a browser and read the loadkit tab; see `browse_tab.py`."""
    chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    if shutil.which(chromium) is None:
        missing = f"no Chromium at {chromium} (set $CHROMIUM)"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    command = [sys.executable, str(SUPPORT / "browse_tab.py"), url, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen
