"""`loadkit run` as a command: exit codes and output, and three-way agreement on the reference
server with a tiny model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripted import scripted_server
from served import serving
from tiny_model import write_tiny_model
from waiting import GENEROUS_S, until

pytestmark = pytest.mark.e2e

PROFILE = """\
schema: loadkit.profile/1
name: small-chat
summary: a few short conversations
seed: 7
traffic:
  kind: conversation
  corpus: {corpus}
  sessions: 6
  system_prompts: {{count: 2, sentences: 2, source: test}}
  turns: {{distribution: constant, mean: 2, max: 2, source: test}}
  think_s: {{distribution: constant, mean: 0.1, max: 1, source: test}}
  message_sentences: {{distribution: constant, mean: 1, max: 1, source: test}}
arrivals: {{loop: open, process: poisson, rate_per_s: 10}}
request:
  max_tokens: {{distribution: constant, mean: 6, max: 6, source: test}}
max_duration_s: 60
"""


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    from loadkit.corpora import names

    path = tmp_path / "profile.yaml"
    path.write_text(PROFILE.format(corpus=names()[0]))
    return path


def loadkit_run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadkit", "run", *map(str, arguments)]
    clean = {k: v for k, v in os.environ.items() if not k.endswith("API_KEY")}
    return subprocess.run(
        command, env=clean | environment, capture_output=True, text=True, timeout=120
    )


def test_usage_metrics_and_prediction_agree_on_the_reference_server(
    tmp_path: Path, profile: Path
) -> None:
    model = write_tiny_model(tmp_path / "tiny")
    options = ("--model", str(model), "--num-blocks", "4000", "--block-size", "4")
    with serving(*options, api_key="sk-canary") as served:
        done = loadkit_run(
            *(profile, "--url", served.url, "-o", tmp_path / "out", "--tokenizer", model),
            *("--reset", "--json", "--processes", 2),
            LOADKIT_API_KEY="sk-canary",
        )
    assert done.returncode == 0, done.stderr
    run: dict[str, Any] = json.loads(done.stdout)
    assert run["requests"]["ok"] == run["requests"]["scheduled"] == 12
    assert run["processes"] == 2
    assert run["totals"]["cached_tokens"] > 0
    assert run["reconciliation"]["agrees"] is True, run["reconciliation"]
    parts = ("replay_same_session", "replay_cross_session", "continuation", "shared", "miss")
    assert sum(run["split"][part] for part in parts) == run["totals"]["prompt_tokens"]
    assert json.loads((tmp_path / "out" / "run.json").read_text()) == run


def test_a_tenants_key_that_metrics_refuse_is_said_and_is_no_zero(
    tmp_path: Path, profile: Path
) -> None:
    """Several client keys and an admin key: /metrics is the admin's."""
    model = write_tiny_model(tmp_path / "tiny")
    for name, text in (("keys", "one\ntwo\n"), ("admin", "boss\n")):
        (tmp_path / name).write_text(text)
    keys = ("--api-key-file", str(tmp_path / "keys"), "--admin-key-file", str(tmp_path / "admin"))
    with serving("--model", str(model), "--num-blocks", "4000", *keys) as served:
        done = loadkit_run(
            *(profile, "--url", served.url, "-o", tmp_path / "out", "--tokenizer", model, "--json"),
            LOADKIT_API_KEY="two",
        )
    assert done.returncode == 0, done.stderr
    run: dict[str, Any] = json.loads(done.stdout)
    witnesses = run["reconciliation"]
    assert witnesses["usage"]["cached_tokens"] > 0
    assert witnesses["prometheus"]["cached_tokens"] is None
    assert witnesses["prometheus"]["prompt_tokens"] is None
    assert [note for note in run["notes"] if "/metrics refused this key" in note]


def test_the_same_seed_again_on_a_warm_server_is_another_sessions_replay(
    tmp_path: Path, profile: Path
) -> None:
    """A mirage of the plainest sort: what hits are the first run's sessions, not this one's own."""
    runs = []
    with serving(
        "--model", str(write_tiny_model(tmp_path / "tiny")), "--block-size", "4"
    ) as served:
        for name in ("first", "second"):
            done = loadkit_run(profile, "--url", served.url, "-o", tmp_path / name, "--json")
            assert done.returncode == 0, done.stderr
            runs.append(json.loads(done.stdout))
    first, second = (run["split"] for run in runs)
    assert first["prompt_tokens"] == second["prompt_tokens"]  # the same plan
    assert first["replay_cross_session"] == 0
    assert second["replay_cross_session"] > 0.9 * second["prompt_tokens"]
    assert second["replay_same_session"] == second["continuation"] == second["shared"] == 0


def test_a_good_run_exits_0_with_a_summary(tmp_path: Path, profile: Path) -> None:
    with scripted_server(tmp_path) as server:
        done = loadkit_run(profile, "--url", server.url, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "12 scheduled: 12 ok" in done.stdout
    assert "token-weighted" in done.stdout
    assert "locust" not in (done.stdout + done.stderr).lower()


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_what_was_kept_and_where(
    tmp_path: Path, profile: Path, how: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    slow = "traffic.think_s={distribution: constant, mean: 30, max: 30, source: test}"
    with scripted_server(tmp_path) as server:
        command = [sys.executable, "-m", "loadkit", "run", str(profile), "--set", slow]
        with subprocess.Popen(
            [*command, "--url", server.url, "-o", str(out)], stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            first = process.stderr.readline()
            until(lambda: len(server.truth()) >= 6)
            process.send_signal(how)
            rest = process.stderr.read()
            assert process.wait(GENEROUS_S) == code
    assert first == "loadkit: sending 12 requests of small-chat\n"
    assert rest == f"loadkit: interrupted; 6 of 12 requests kept in {out}\n"
    run = json.loads((out / "run.json").read_text())
    assert [reason["code"] for reason in run["reasons"]] == ["interrupted"]
    assert not list(tmp_path.glob(".out*"))


def test_seed_and_set_change_the_profile_as_run(tmp_path: Path, profile: Path) -> None:
    with scripted_server(tmp_path) as server:
        done = loadkit_run(
            *(profile, "--url", server.url, "-o", tmp_path / "out", "--json"),
            *("--seed", 9, "--set", "traffic.sessions=2"),
        )
    run = json.loads(done.stdout)
    assert (run["seed"], run["profile"]["traffic"]["sessions"]) == (9, 2)
    assert run["requests"]["scheduled"] == 4


@pytest.mark.parametrize(
    ("server", "arguments", "code", "says"),
    [
        ((), ["--set", "max_duration_s=0.001"], 3, "no request was sent"),
        (
            ("--mode", "busy"),
            [],
            3,
            "6 http_error, 6 not_sent; most often: http_error 503: queue full",
        ),
        (("--key", "k"), [], 2, "refused the API key (401)"),
        ((), ["--model", "other"], 2, "no model 'other'"),
        ((), ["--reset"], 2, "cannot reset its prefix cache"),
        ((), ["--set", "traffic.nonsense=1"], 2, "--set traffic.nonsense: unknown key"),
        ((), ["--url", "http://127.0.0.1:9"], 2, "is it running"),
        ((), ["--url", "127.0.0.1:9"], 2, "not an http:// or https:// URL"),
    ],
)
def test_what_cannot_be_measured_says_why_in_one_line(
    tmp_path: Path,
    profile: Path,
    server: tuple[str, ...],
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    with scripted_server(tmp_path, *server) as scripted:
        done = loadkit_run(
            *(profile, "--url", scripted.url, "-o", tmp_path / "out", "--json"), *arguments
        )
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 or (len(lines) == 2 and lines[0].startswith("loadkit: sending 12"))
    assert not list(tmp_path.glob(".out*"))


def test_an_existing_run_folder_is_kept(tmp_path: Path, profile: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text("precious")
    with scripted_server(tmp_path) as server:
        done = loadkit_run(profile, "--url", server.url, "-o", tmp_path / "out")
        assert server.truth() == []
    assert done.returncode == 2
    assert "already exists" in done.stderr
    assert (tmp_path / "out" / "run.json").read_text() == "precious"
