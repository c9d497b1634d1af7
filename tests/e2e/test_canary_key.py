"""An API key stays where it was given: in the environment, and in the requests. A canary is looked
for in every file, argument and word of output: after success, a refusal, a server that repeats it,
and a kill."""

from __future__ import annotations

import gzip
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from scripted import Scripted, scripted_server
from waiting import GENEROUS_S, until

pytestmark = pytest.mark.e2e

# Of this process alone: the arguments of all others are searched too. No 8 characters are a word.
CANARY = "sk-" + secrets.token_hex(20)
PARTS = [CANARY[at : at + 8] for at in range(len(CANARY) - 7)]
PROFILE = """\
schema: loadkit.profile/1
name: canary
summary: a few conversations
seed: 7
traffic:
  kind: conversation
  corpus: assistant-chat
  sessions: 12
  system_prompts: {count: 2, sentences: 2, source: test}
  turns: {distribution: constant, mean: 2, max: 2, source: test}
  think_s: {distribution: constant, mean: 0.1, max: 1, source: test}
  message_sentences: {distribution: constant, mean: 1, max: 1, source: test}
arrivals: {loop: open, process: poisson, rate_per_s: 8}
request:
  max_tokens: {distribution: constant, mean: 6, max: 6, source: test}
max_duration_s: 60
"""


@contextmanager
def running(folder: Path, url: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`loadkit run` with two workers and the canary as its key; home and temporary files within
    `folder`, which it has for itself. What it prints goes into files there."""
    (folder / "tmp").mkdir(parents=True)
    (folder / "canary.yaml").write_text(PROFILE)
    command = [sys.executable, "-m", "loadkit", "run", str(folder / "canary.yaml"), "--url", url]
    command += ["-o", str(folder / "out"), "--processes", "2", *options]
    own = {"LOADKIT_API_KEY": CANARY, "TMPDIR": str(folder / "tmp"), "HOME": str(folder)}
    with (
        (folder / "stdout").open("wb") as out,
        (folder / "stderr").open("wb") as err,
        subprocess.Popen(command, env=os.environ | own, stdout=out, stderr=err) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def arguments_of_all() -> bytes:
    """The command lines of every process on the machine that may be read."""
    found = b""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found += (entry / "cmdline").read_bytes()
            except OSError:
                continue
    return found


def files_with(word: str, folder: Path) -> list[str]:
    """Files that hold the word, as it stands or inside gzip or Parquet, or in their names."""
    found = []
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        if path.suffix == ".parquet":
            data += str(pq.read_table(path).to_pylist()).encode()
        data += str(path).encode()
        if any(part.encode() in data for part in ([word] if word != CANARY else PARTS)):
            found.append(str(path.relative_to(folder)))
    return found


def wait_for_traffic(server: Scripted) -> None:
    until(server.truth, "no request came")


def test_the_search_finds_a_key_in_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"x{CANARY}")
    (tmp_path / "b.gz").write_bytes(gzip.compress(CANARY.encode()))
    assert sorted(files_with(CANARY, tmp_path)) == ["a.txt", "b.gz"]
    with subprocess.Popen([sys.executable, "-c", "input()", CANARY], stdin=subprocess.PIPE) as one:
        until(lambda: CANARY.encode() in arguments_of_all())
        one.kill()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads arguments in /proc")
def test_a_run_that_succeeds_keeps_the_key_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    with (
        scripted_server(tmp_path, "--key", CANARY) as server,
        running(folder, server.url) as process,
    ):
        wait_for_traffic(server)
        assert b"locustfile" in (arguments := arguments_of_all())
        # The scripted server has the key in its arguments, once; nobody else may.
        assert arguments.count(CANARY.encode()) == 1
        assert process.wait(GENEROUS_S) == 0
    assert files_with(CANARY, folder) == []


@pytest.mark.parametrize(
    ("key", "mode"), [("another", "ok"), (CANARY, "echo")], ids=["refused", "repeated"]
)
def test_a_server_that_refuses_or_repeats_the_key_gets_it_into_no_file(
    tmp_path: Path, key: str, mode: str
) -> None:
    folder = tmp_path / "own"
    with (
        scripted_server(tmp_path, "--key", key, "--mode", mode) as server,
        running(folder, server.url) as process,
    ):
        assert process.wait(GENEROUS_S) in (2, 3)
    assert b"loadkit: " in (folder / "stderr").read_bytes()
    assert files_with(CANARY, folder) == []


def test_a_server_that_tells_the_key_in_every_field_gets_no_part_of_it_into_a_file(
    tmp_path: Path,
) -> None:
    with scripted_server(tmp_path, "--key", CANARY, "--mode", "leak") as server:
        folder = tmp_path / "unnamed"
        with running(folder, server.url) as process:
            assert process.wait(GENEROUS_S) == 2
        assert b"a model's name repeats the API key" in (folder / "stderr").read_bytes()
        assert files_with(CANARY, folder) == []
        folder = tmp_path / "named"
        with running(folder, server.url, "--model", "scripted") as process:
            assert process.wait(GENEROUS_S) == 0
    run = json.loads((folder / "out" / "run.json").read_bytes())
    assert run["requests"]["ok"] == run["requests"]["scheduled"]
    assert any("/v1/models could not be read" in note for note in run["notes"])
    assert files_with("***", folder), "the replies are kept, with stars"
    assert files_with(CANARY, folder) == []


def test_a_run_that_is_killed_leaves_no_key_behind(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    with (
        scripted_server(tmp_path, "--key", CANARY) as server,
        running(folder, server.url) as process,
    ):
        wait_for_traffic(server)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert list(folder.glob(".out.work-*/**/*")), "the journals stay"
    assert files_with(CANARY, folder) == []
