"""The demonstration as a user runs it: the mirage shows, and nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from loadkit.gate import decide

pytestmark = pytest.mark.e2e
COMMAND = [sys.executable, "-m", "loadkit", "demo"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    out = tmp_path_factory.mktemp("demo") / "loadkit-demo"
    done = subprocess.run(
        [*COMMAND, "-o", str(out), "--json"],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env={**os.environ, "LOADKIT_API_KEY": "of-another-server"},
    )
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    return out, json.loads(done.stdout)


def test_the_gate_fails_staging_as_a_replay_mirage(demo: tuple[Path, dict[str, object]]) -> None:
    out, _ = demo
    gate = json.loads((out / "gate.json").read_text("utf-8"))
    assert gate["verdict"] == "FAIL"
    assert "replay_mirage" in {reason["code"] for reason in gate["reasons"]}


@pytest.mark.parametrize("name", ["staging", "production"])
def test_usage_prometheus_and_prediction_agree_to_the_token(
    demo: tuple[Path, dict[str, object]], name: str
) -> None:
    run = json.loads((demo[0] / name / "run.json").read_text("utf-8"))
    counts = run["reconciliation"]
    cached = {counts[w]["cached_tokens"] for w in ("usage", "prometheus", "prediction")}
    prompt = {counts[w]["prompt_tokens"] for w in ("usage", "prometheus", "prediction")}
    assert len(cached) == len(prompt) == 1
    assert cached.pop() > 0
    assert counts["agrees"] is True


@pytest.mark.parametrize("name", ["staging", "production"])
def test_the_split_adds_up_to_the_prompt_tokens(
    demo: tuple[Path, dict[str, object]], name: str
) -> None:
    split = json.loads((demo[0] / name / "run.json").read_text("utf-8"))["split"]
    parts = (
        "replay_same_session",
        "replay_cross_session",
        "continuation",
        "shared",
        "miss_capacity",
        "miss_compulsory",
    )
    assert sum(split[part] for part in parts) == split["prompt_tokens"] > 0


def test_staging_is_replay_and_production_is_not(demo: tuple[Path, dict[str, object]]) -> None:
    staging, production = (
        json.loads((demo[0] / name / "run.json").read_text("utf-8"))["split"]
        for name in ("staging", "production")
    )
    assert staging["replay_cross_session_rate"] > 0.7
    assert production["continuation"] > 0
    assert production["shared"] > 0
    assert production["hit_rate"] < staging["hit_rate"]


def test_the_same_gate_does_not_fail_the_production_like_run(
    demo: tuple[Path, dict[str, object]],
) -> None:
    run = json.loads((demo[0] / "production" / "run.json").read_text("utf-8"))
    expected = json.loads((demo[0] / "expected.json").read_text("utf-8"))
    assert decide(run, expected).verdict != "FAIL"


def test_the_report_is_one_offline_file(demo: tuple[Path, dict[str, object]]) -> None:
    report = (demo[0] / "report.html").read_text("utf-8")
    assert "replay_mirage" in report
    assert "http://" not in report.replace("http://127.0.0.1", "").replace("http://www.w3.org", "")


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_no_process_and_no_folder(
    tmp_path: Path, how: signal.Signals, code: int
) -> None:
    out, said = tmp_path / "demo" / "loadkit-demo", tmp_path / "stderr.txt"
    with said.open("wb") as stderr:
        process = subprocess.Popen(
            [*COMMAND, "-o", str(out)],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        assert _wait(lambda: any("locust" in line for line in _commands_under(out.parent)), 300)
        os.kill(process.pid, how)
        assert process.wait(60) == code
    finally:
        process.kill()
        process.wait()
    assert _wait(lambda: not _commands_under(out.parent), 20), _commands_under(out.parent)
    assert list(out.parent.iterdir()) == []
    lines = said.read_text("utf-8").splitlines()
    assert lines[0] == "loadkit: Starting the reference server"
    assert lines[-1] == f"loadkit: interrupted; nothing was changed in {out}"


def _commands_under(folder: Path) -> list[str]:
    """Command lines and environments of live processes that mention the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            files = [str(link.readlink()) for link in (entry / "fd").iterdir()]
        except OSError:
            continue
        if entry.name != str(os.getpid()) and (
            str(folder).encode() in text or any(str(folder) in name for name in files)
        ):
            found.append((entry / "cmdline").read_text("utf-8", "replace").replace("\0", " "))
    return found


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.2)
    return False
