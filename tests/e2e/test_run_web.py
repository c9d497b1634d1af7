"""`loadkit run --web`: started in the interface, ended with Ctrl-C, recorded like any other run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from scripted import scripted_server
from waiting import GENEROUS_S, answers, until

pytestmark = pytest.mark.e2e

PROFILE = """\
schema: loadkit.profile/1
name: web
summary: for the web interface
traffic:
  kind: replay
  corpus: {corpus}
  distinct_prompts: 2
  requests: 6
  wrap: allow
  message_sentences: {{distribution: constant, mean: 1, max: 1, source: test}}
arrivals: {{loop: open, process: constant, rate_per_s: 20}}
request:
  max_tokens: {{distribution: constant, mean: 2, max: 2, source: test}}
"""


def free_port() -> int:
    from loadkit.locust_users.process import free_port

    return free_port()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_started_in_the_browser_is_recorded(tmp_path: Path, processes: int) -> None:
    """Started with more users than needed, and started a second time: still 6 requests."""
    from loadkit.corpora import names

    profile, out, port = tmp_path / "p.yaml", tmp_path / "out", free_port()
    profile.write_text(PROFILE.format(corpus=names()[0]))
    with scripted_server(tmp_path) as server:
        command = [sys.executable, "-m", "loadkit", "run", str(profile), "--url", server.url]
        command += ["-o", str(out), "--web", "--web-port", str(port), "--json"]
        command += ["--processes", str(processes)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
        ) as process:
            try:
                with httpx.Client(
                    base_url=f"http://127.0.0.1:{port}", timeout=GENEROUS_S
                ) as client:
                    until(lambda: answers(client), "the web interface did not come up")
                    for _ in range(2):
                        wait_for_state(client, {"ready", "stopped"}, processes)
                        swarm = {"user_count": 5, "spawn_rate": 5}
                        assert client.post("/swarm", data=swarm).json()["success"]
                        wait_for_state(client, {"stopped"}, processes)
                process.send_signal(signal.SIGINT)
                printed, errors = process.communicate(timeout=GENEROUS_S)
            finally:
                if process.poll() is None:
                    process.kill()
        assert process.returncode == 0, errors
        assert len(server.truth_of(6)) == 6
    run = json.loads(printed)
    assert run["requests"]["ok"] == run["requests"]["scheduled"] == 6
    assert f"press start at http://127.0.0.1:{port}" in errors
    assert out.is_dir()


def wait_for_state(client: httpx.Client, states: set[str], processes: int) -> None:
    def is_there() -> bool:
        answer = client.get("/stats/requests").json()
        all_there = processes == 1 or len(answer.get("workers", [])) == processes
        return answer["state"] in states and all_there

    until(is_there, f"no state of {states}")
