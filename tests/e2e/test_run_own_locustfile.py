"""A user's own locustfile with loadkit's user classes, run by plain `locust`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from scripted import Scripted, scripted_server
from waiting import GENEROUS_S, answers, until

pytestmark = pytest.mark.e2e

PROFILE = """\
schema: loadkit.profile/1
name: small
summary: a few short conversations
seed: 7
traffic:
  kind: conversation
  corpus: assistant-chat
  sessions: 6
  system_prompts: {count: 2, sentences: 2, source: test}
  turns: {distribution: constant, mean: 2, max: 2, source: test}
  think_s: {distribution: constant, mean: 0.05, max: 1, source: test}
  message_sentences: {distribution: constant, mean: 1, max: 1, source: test}
arrivals: ARRIVALS
request:
  max_tokens: {distribution: constant, mean: 4, max: 4, source: test}
max_duration_s: 60
"""
OPEN = "{loop: open, process: poisson, rate_per_s: 20}"
CLOSED = "{loop: closed, users: 2}"
FIVE_LINES = """\
from loadkit.locust_users import ConversationUser

class MyChat(ConversationUser):
    profile = "small.yaml"
    host = "URL"
"""
TWO_CLASSES = """\
from locust import LoadTestShape, tag
from loadkit.locust_users import ConversationUser, CorpusUser

@tag("chat")
class MyChat(ConversationUser):
    profile = "small.yaml"
    host = "URL"

@tag("corpus")
class MyCorpus(CorpusUser):
    profile = "small.yaml"
    host = "URL"

class Steps(LoadTestShape):
    def tick(self):
        return (1 if self.get_run_time() < 0.5 else 2, 10)
"""


def write(folder: Path, locustfile: str, url: str, arrivals: str = OPEN) -> None:
    (folder / "locustfile.py").write_text(locustfile.replace("URL", url))
    (folder / "small.yaml").write_text(PROFILE.replace("ARRIVALS", arrivals))


def start(folder: Path, *options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "locust", "--only-summary", *map(str, options)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LOCUST_", "LOADKIT_"))}
    return subprocess.Popen(command, cwd=folder, env=clean, stderr=subprocess.PIPE, text=True)


def headless(folder: Path, *options: object) -> tuple[int, str]:
    with start(folder, "--headless", *options) as process:
        errors = process.communicate(timeout=GENEROUS_S)[1]
    return process.returncode, errors


def run_of(folder: Path) -> dict[str, Any]:
    run: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return run


def check_complete(run: dict[str, Any], server: Scripted) -> None:
    """6 sessions of 2 turns, each sent once."""
    assert run["requests"]["ok"] == run["requests"]["scheduled"] == 12
    assert run["status"] == "ok", run["reasons"]
    sent = Counter((row["session"], len(row["messages"])) for row in server.truth_of(12))
    assert len(sent) == 12
    assert set(sent.values()) == {1}


def hidden(folder: Path) -> list[Path]:
    return list(folder.glob(".*"))


def test_five_lines_are_enough(tmp_path: Path) -> None:
    """The run ends by itself, and its folder is below `loadkit-runs`."""
    with scripted_server(tmp_path) as server:
        write(tmp_path, FIVE_LINES, server.url)
        code, errors = headless(tmp_path)
        assert code == 0, errors
        (made,) = (tmp_path / "loadkit-runs").iterdir()
        check_complete(run_of(made), server)
    assert made.name.startswith("MyChat-")
    assert "12 of 12 requests answered; run folder: loadkit-runs/MyChat-" in errors
    assert not hidden(tmp_path)


def test_workers_share_a_closed_loop_whose_users_a_shape_commands(tmp_path: Path) -> None:
    """Two processes; one class by name and tag; the shape goes from one user to two."""
    with scripted_server(tmp_path) as server:
        write(tmp_path, TWO_CLASSES, server.url, CLOSED)
        options = ("--processes", 2, "--tags", "chat", "--loadkit-out", "out")
        code, errors = headless(tmp_path, *options, "MyChat")
        assert code == 0, errors
        run = run_of(tmp_path / "out")
        check_complete(run, server)
    assert (run["loop"], run["missing_workers"]) == ("closed", 0)
    assert not hidden(tmp_path)


def test_a_class_picked_in_the_web_interface_and_a_second_test(tmp_path: Path) -> None:
    port = free_port()
    locustfile = TWO_CLASSES[: TWO_CLASSES.index("class Steps")]
    with scripted_server(tmp_path) as server:
        write(tmp_path, locustfile, server.url)
        options = ("--class-picker", "--web-port", port, "--loadkit-out", "out")
        with start(tmp_path, *options) as process:
            try:
                with httpx.Client(
                    base_url=f"http://127.0.0.1:{port}", timeout=GENEROUS_S
                ) as client:
                    until_up(client)
                    for made in ("out", "out-2"):
                        swarm = {"user_count": 1, "spawn_rate": 1, "user_classes": "MyChat"}
                        assert client.post("/swarm", data=swarm).json()["success"]
                        wait_for(tmp_path / made / "run.json")
                    live = client.get("/loadkit/live").json()
                process.send_signal(signal.SIGINT)
                errors = process.communicate(timeout=GENEROUS_S)[1]
            finally:
                if process.poll() is None:
                    process.kill()
        for made in ("out", "out-2"):
            assert run_of(tmp_path / made)["requests"]["ok"] == 12, errors
    assert live["requests"] == 12  # of the second test


def test_traffic_that_a_class_does_not_play_is_refused_before_anything_is_sent(
    tmp_path: Path,
) -> None:
    with scripted_server(tmp_path) as server:
        write(tmp_path, TWO_CLASSES[: TWO_CLASSES.index("class Steps")], server.url)
        code, errors = headless(tmp_path, "MyChat", "MyCorpus", "--users", 2)
        assert server.truth() == []
    assert code == 2
    assert "small: MyCorpus does not play traffic of kind conversation" in errors
    assert not hidden(tmp_path)


def free_port() -> int:
    from loadkit.locust_users.process import free_port

    return free_port()


def until_up(client: httpx.Client) -> None:
    until(lambda: answers(client), "the web interface did not come up")


def wait_for(path: Path) -> None:
    until(path.exists, f"no {path}")
