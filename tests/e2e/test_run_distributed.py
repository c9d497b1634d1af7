"""A master and workers of one run at different loopback addresses, as on several machines."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from scripted import Scripted, scripted_server
from waiting import GENEROUS_S, until

pytestmark = pytest.mark.e2e

MASTER = "127.0.0.2"
PROFILE = """\
schema: loadkit.profile/1
name: spread
summary: single prompts
seed: 3
traffic:
  kind: corpus
  corpus: assistant-chat
  requests: REQUESTS
  message_sentences: {distribution: constant, mean: 2, max: 2, source: test}
arrivals: {loop: open, process: constant, rate_per_s: 20}
request:
  max_tokens: {distribution: constant, mean: 4, max: 4, source: test}
max_duration_s: 60
"""


class Cluster:
    """A master and workers as processes; a worker's folder is its working directory."""

    def __init__(self, folder: Path, server: Scripted, requests: int):
        self.folder, self.port = folder, free_port()
        profile = folder / "spread.yaml"
        profile.write_text(PROFILE.replace("REQUESTS", str(requests)))
        self.master = self._start(
            folder,
            *(profile, "--url", server.url, "-o", folder / "out", "--json"),
            *("--master", "--expect-workers", 2),
            token="right",
        )
        self.workers: list[subprocess.Popen[str]] = []
        until(lambda: listens(MASTER, self.port) or self.master.poll() is not None)

    def start_workers(self) -> None:
        self.workers += [self.worker(f"w{number}") for number in range(2)]

    def worker(self, name: str, token: str = "right") -> subprocess.Popen[str]:
        (self.folder / name).mkdir()
        return self._start(self.folder / name, "--worker", token=token)

    def stranger(self) -> subprocess.Popen[str]:
        """A plain Locust worker, that knows nothing of loadkit."""
        locustfile = self.folder / "theirs.py"
        locustfile.write_text("from locust import User\nclass Theirs(User): pass\n")
        command = [sys.executable, "-m", "locust", "-f", str(locustfile), "--worker"]
        command += ["--master-host", MASTER, "--master-port", str(self.port)]
        made = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.workers.append(made)
        return made

    def _start(self, folder: Path, *options: object, token: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "loadkit", "run", *map(str, options)]
        command += ["--master-host", MASTER, "--master-port", str(self.port)]
        environment = os.environ | {"LOADKIT_TOKEN": token}
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[int, str, str]:
        printed, errors = self.master.communicate(timeout=GENEROUS_S)
        return self.master.returncode, printed, errors


@contextmanager
def cluster(folder: Path, requests: int, *options: str) -> Iterator[tuple[Cluster, Scripted]]:
    with scripted_server(folder, *options) as server:
        made = Cluster(folder, server, requests)
        try:
            yield made, server
        finally:
            for process in (made.master, *made.workers):
                if process.poll() is None:
                    process.kill()
                process.communicate()


def free_port() -> int:
    from loadkit.locust_users.process import free_port

    return free_port()


def listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def locust_of(worker: subprocess.Popen[str]) -> int:
    """The pid of the Locust process that a worker's command has started."""
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    return int(children[0])


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def sessions_of(folder: Path) -> Counter[tuple[str, int]]:
    table = pq.read_table(folder / "requests.parquet", columns=["session", "turn"])
    return Counter(zip(table["session"].to_pylist(), table["turn"].to_pylist(), strict=True))


def test_every_request_is_sent_once_and_a_stranger_gets_no_share(tmp_path: Path) -> None:
    """A plain Locust worker is there first and leaves in the middle; one with another token says so
    and ends. Neither is one of the two that the master waits for."""
    with cluster(tmp_path, 40) as (spread, server):
        plain = spread.stranger()
        wrong = spread.worker("stranger", token="wrong")
        spread.workers.append(wrong)
        assert wrong.wait(timeout=60) == 3
        assert "another token" in wrong.communicate()[1]
        spread.start_workers()
        until(lambda: len(server.truth()) >= 5)
        plain.terminate()
        code, printed, errors = spread.end()
        assert code == 0, errors
        assert errors.count("showed another token") == 1
        assert errors.count("showed no token") == 1
        sent = Counter(row["session"] for row in server.truth_of(40))
    run = json.loads(printed)
    assert run["requests"]["ok"] == run["requests"]["scheduled"] == 40
    assert sum("it takes no part" in note for note in run["notes"]) == 2
    assert (run["processes"], run["missing_workers"], run["duplicate_records"]) == (2, 0, 0)
    assert len(run["client"]["workers"]) == 2
    assert len(sent) == 40
    assert set(sent.values()) == {1}
    table = pq.read_table(tmp_path / "out" / "requests.parquet")
    assert Counter(table["worker"].to_pylist()) == {0: 20, 1: 20}
    assert not list(tmp_path.glob("*/.*"))
    assert not list(tmp_path.glob(".out*"))


def test_a_worker_killed_in_the_middle_leaves_a_run_that_is_marked_and_adds_up(
    tmp_path: Path,
) -> None:
    """What it had journalled and not sent is in its own folder, from which it can be had."""
    with cluster(tmp_path, 160, "--ttft", "0.1") as (spread, server):
        spread.start_workers()
        until(lambda: len(server.truth()) >= 30)
        victim = locust_of(spread.workers[0])
        os.kill(victim, signal.SIGKILL)
        code, printed, errors = spread.end()
        assert code == 3, errors
    run = json.loads(printed)
    assert run["missing_workers"] == 1
    counts = run["requests"]
    assert sum(n for name, n in counts.items() if name != "scheduled") == counts["scheduled"] == 160
    assert set(sessions_of(tmp_path / "out").values()) == {1}
    (left,) = (tmp_path / "w0").glob(".loadkit-worker-*")
    recovered = recover(left, tmp_path / "rest")
    theirs = sessions_of(tmp_path / "rest")
    assert set(theirs.values()) == {1}
    assert recovered["requests"]["ok"] >= 10
    known = set(sessions_of(tmp_path / "out"))
    assert len(known - set(theirs)) == 80  # the other worker's share
    assert {row["session"] for row in server.truth() if row["finished"]} >= {
        session for session, _ in set(theirs) & known
    }


def recover(folder: Path, out: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "loadkit", "run", "--recover", str(folder), "-o", str(out)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr  # an interrupted run is not valid
    run: dict[str, Any] = json.loads(done.stdout)
    return run


def test_workers_that_lose_their_master_stop_and_say_where_their_records_are(
    tmp_path: Path,
) -> None:
    """Both the launcher and its Locust are killed; the master's own folder can be recovered too."""
    with cluster(tmp_path, 300) as (spread, server):
        spread.start_workers()
        until(lambda: len(server.truth()) >= 20)
        workers = [locust_of(worker) for worker in spread.workers]
        for pid in (spread.master.pid, locust_of(spread.master)):
            os.kill(pid, signal.SIGKILL)
        until(lambda: all(map(is_gone, workers)))
        sent_at_the_end = len(server.truth())
        errors = [worker.communicate(timeout=GENEROUS_S)[1] for worker in spread.workers]
    assert sent_at_the_end < 300
    for number, said in enumerate(errors):
        (left,) = (tmp_path / f"w{number}").glob(".loadkit-worker-*")
        assert f"records that it does not have are kept in {left}" in said
    (work,) = tmp_path.glob(".out.work-*")
    run = recover(work, tmp_path / "saved")
    assert run["requests"]["ok"] > 0
    assert set(sessions_of(tmp_path / "saved").values()) == {1}


def test_a_worker_without_a_master_says_so_and_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadkit", "run", "--worker", "--master-host", MASTER]
    command += ["--master-port", str(free_port())]
    environment = os.environ | {"LOADKIT_TOKEN": "right"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 3
    assert f"no run waits for workers at {MASTER}:" in done.stderr
    assert "--master" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_worker_of_a_plain_locust_master_says_so_and_ends(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text("from locust import User\nclass Theirs(User): pass\n")
    port = str(free_port())
    at = ["--master-host", MASTER, "--master-port", port]
    command = [sys.executable, "-m", "locust", "-f", "theirs.py", "--headless", "--master"]
    command += ["--expect-workers", "2", "--master-bind-host", MASTER, "--master-bind-port", port]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as master:
        try:
            until(lambda: listens(MASTER, int(port)))
            environment = os.environ | {"LOADKIT_TOKEN": "right"}
            worker = [sys.executable, "-m", "loadkit", "run", "--worker", *at]
            done = subprocess.run(
                worker, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
            )
        finally:
            master.kill()
    assert done.returncode == 3
    assert "is it a plain Locust master?" in done.stderr
