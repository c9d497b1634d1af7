"""The shell steps of action.yml and docs/ci.md, taken from the files and run as a CI would."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_builders import (
    BLOCK_SIZE,
    make_run,
    production_records,
    staging_records,
    word_tokenizer,
)
from scripted import scripted_server

from loadkit.cli.prelaunch import prelaunch
from loadkit.core.tokenizer import load_tokenizer
from loadkit.forecast import forecast
from loadkit.gate.policy import read_policy
from loadkit.gate.verdict import CODES
from loadkit.traces import read_log

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
DOCS = (ROOT / "docs" / "ci.md").read_text()
SMALL = """
schema: loadkit.profile/1
name: small
summary: forty short requests
traffic:
  kind: replay
  corpus: assistant-chat
  distinct_prompts: 40
  requests: 40
  message_sentences: {distribution: constant, mean: 3, max: 9, source: test}
arrivals: {loop: closed, users: 8}
request:
  max_tokens: {distribution: constant, mean: 4, max: 4, source: test}
max_duration_s: 60
"""


@dataclass
class Shop:
    """A CI's machine: a folder with the files that the documents name."""

    at: Path
    tokenizer: str

    def bash(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a script as a CI does, with our loadkit and no other programs than it needs."""
        tools = self.at / "tools"
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("GITHUB_", "LOADKIT_"))},
            "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "GITHUB_OUTPUT": str(self.at / "github-output"),
            "GITHUB_STEP_SUMMARY": str(self.at / "summary.md"),
            "GITHUB_ACTIONS": "true",
            "OMP_NUM_THREADS": "1",
            **variables,
        }
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
        return subprocess.run(
            command, cwd=self.at, env=environment, capture_output=True, text=True, timeout=120
        )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    at = tmp_path_factory.mktemp("ci")
    tokenizer = word_tokenizer(at / "tokenizer")
    setting: dict[str, Any] = {"tokenizer": tokenizer, "capacity_blocks": 1500}
    make_run(at / "production", production_records(40, 3), **setting)
    make_run(at / "staging", staging_records(5, 40, 3), **setting, wraps=7)
    log = at / "production" / "sent.jsonl.gz"
    trace = read_log([log], tokenizer=load_tokenizer(tokenizer), block_size=BLOCK_SIZE).trace
    (at / "expected.json").write_text(json.dumps(forecast(trace, 1.0, 1500).to_dict()))
    (at / "production.jsonl.gz").write_bytes(log.read_bytes())
    (at / "small.yaml").write_text(SMALL)
    (at / "gate.yaml").write_text(_block("# gate.yaml"))
    (at / "tools").mkdir()
    for name in ("pip", "vllm"):  # nothing is installed, and the server is there already
        (at / "tools" / name).write_text("#!/bin/sh\nexit 0\n")
        (at / "tools" / name).chmod(0o755)
    main = "from loadkit.cli import main; main()"
    (at / "tools" / "loadkit").write_text(f"#!/bin/sh\nexec {sys.executable} -c '{main}' \"$@\"\n")
    (at / "tools" / "loadkit").chmod(0o755)
    return Shop(at, tokenizer)


def _block(first_line: str) -> str:
    """The code block of docs/ci.md that begins with this line."""
    [found] = [b for b in re.findall(r"```\w+\n(.*?)```", DOCS, re.S) if b.startswith(first_line)]
    return str(found)


def step(name: str, **inputs: str) -> tuple[str, dict[str, str]]:
    """A step of the action: its script, and its variables with the inputs filled in."""
    [found] = [one for one in ACTION["runs"]["steps"] if one["name"] == name]
    given = {key: str(one.get("default", "")) for key, one in ACTION["inputs"].items()} | inputs

    def filled(text: str) -> str:
        return re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: given[m[1]], text)

    return found["run"], {key: filled(value) for key, value in found["env"].items()}


def test_no_input_is_pasted_into_a_script() -> None:
    scripts = [one["run"] for one in ACTION["runs"]["steps"] if "run" in one]
    assert len(scripts) == 2
    assert not [script for script in scripts if "${{" in script]


# A project that builds without fetching anything: its backend lies in its own folder.
BACKEND = """
import zipfile
from pathlib import Path

NAME, INFO = "loadkit_llm-1-py3-none-any.whl", "loadkit_llm-1.dist-info"


def build_wheel(folder, config_settings=None, metadata_directory=None):
    files = {
        "stub.py": "def main(): print('installed')",
        f"{INFO}/METADATA": "Metadata-Version: 2.1\\nName: loadkit-llm\\nVersion: 1\\nProvides-Extra: text\\n",
        f"{INFO}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        f"{INFO}/entry_points.txt": "[console_scripts]\\nloadkit = stub:main\\n",
    }
    with zipfile.ZipFile(Path(folder) / NAME, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{INFO}/RECORD", "".join(f"{name},,\\n" for name in [*files, "RECORD"]))
    return NAME
"""


def test_the_install_step_installs_the_checked_out_action_and_nothing_of_its_name_from_an_index(
    shop: Shop, tmp_path: Path
) -> None:
    action = tmp_path / "the action"
    action.mkdir()
    (action / "backend.py").write_text(BACKEND)
    (action / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (action / "constraints.txt").write_text("other==1\n")
    script, variables = step("Install loadkit")
    path = tmp_path / "path"
    places = {
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_PATH": str(path),
        "GITHUB_ACTION_PATH": str(action),
        "PIP_NO_INDEX": "1",
    }
    done = shop.bash(script, **variables, **places)
    assert done.returncode == 0, done.stderr
    [tools] = path.read_text().splitlines()
    found = subprocess.run([f"{tools}/loadkit"], capture_output=True, text=True)
    assert found.stdout == "installed\n"


@pytest.mark.parametrize("text", [(ROOT / "action.yml").read_text(), DOCS], ids=["action", "docs"])
def test_no_pipeline_installs_our_unpublished_name_from_an_index(text: str) -> None:
    """Whoever registers the name would run code in users' pipelines."""
    installs = re.findall(r"pip install[^\n]*(?:\\\n[^\n]*)*", text)
    assert installs
    for line in installs:
        assert "loadkit" not in line or "@ git+" in line
    assert "OWNER/loadkit@main" not in text


def test_every_input_of_the_action_reaches_prelaunch(shop: Shop, tmp_path: Path) -> None:
    """A stand-in for loadkit writes down its arguments."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "loadkit").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\n')
    (tools / "loadkit").chmod(0o755)
    given = {
        "profile": "p", "url": "u", "log": "l", "traffic": "3x", "horizon": "60", "capacity": "3k",
        "format": "openai", "model": "m", "tokenizer": "t", "block-size": "32", "model-config": "c", "processes": "2",
        "api-key-file": "k", "budget": "9req", "policy": "g", "baseline": "b", "reset": "true",
        "set": "a=1\nb.c=two words", "expected": "e", "output": str(tmp_path / "out"),
    }  # fmt: skip
    script, variables = step("Run and judge", **given)
    done = shop.bash(f'PATH="{tools}:$PATH"\n{script}', **variables)
    assert done.returncode == 0, done.stderr
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[:2] == ["prelaunch", "p"]
    for name, value in given.items():
        if name in ("profile", "output", "reset", "set"):
            continue
        assert arguments[arguments.index(f"--{name}") + 1] == value
    assert "--reset" in arguments
    assert [arguments[i + 1] for i, word in enumerate(arguments) if word == "--set"] == [
        "a=1", "b.c=two words"
    ]  # fmt: skip
    known = set(inspect.signature(prelaunch).parameters)
    inputs = set(ACTION["inputs"]) - {"measured", "artifact", "extras"}
    assert known - {"junit", "markdown", "dry_run", "as_json"} == {
        {"set": "settings"}.get(name, name.replace("-", "_")) for name in inputs
    }


def test_an_earlier_jobs_results_are_never_judged_again(shop: Shop, tmp_path: Path) -> None:
    (shop.at / "stale").mkdir()
    (shop.at / "stale" / "gate.json").write_text('{"verdict": "PASS"}')
    script, variables = step("Run and judge", profile="small.yaml", output="stale")
    done = shop.bash(script, **variables, GITHUB_OUTPUT=str(tmp_path / "output"))
    assert done.returncode == 2
    assert done.stderr.startswith("::error title=loadkit::the output folder has an earlier")
    assert not (tmp_path / "output").exists()


def test_every_step_after_the_verdict_runs_whatever_it_was() -> None:
    *_, judge, keep = ACTION["runs"]["steps"]
    assert judge["id"] == "loadkit"
    assert keep["if"] == "always()"
    outputs = [output["value"] for output in ACTION["outputs"].values()]
    assert all("steps.loadkit.outputs." in value for value in outputs)


def test_the_action_fails_the_job_for_a_mirage_and_keeps_its_results(shop: Shop) -> None:
    script, variables = step(
        "Run and judge", measured="staging", expected="expected.json", output="judged"
    )
    done = shop.bash(script, **variables)
    assert done.returncode == 1, done.stderr
    assert "::error title=loadkit gate%3A replay_mirage::" in done.stderr
    output = (shop.at / "github-output").read_text().splitlines()
    assert output[-2:] == ["verdict=FAIL", "report=judged/report.html"]
    names = {path.name for path in (shop.at / "judged").iterdir()}
    assert names == {"gate.json", "report.html", "junit.xml", "verdict.md"}
    assert ET.parse(shop.at / "judged" / "junit.xml").getroot().get("failures") == "2"
    assert (shop.at / "summary.md").read_text().startswith("## loadkit gate: FAIL")


def test_an_input_cannot_become_a_command_and_bad_input_is_exit_2(shop: Shop) -> None:
    script, variables = step(
        "Run and judge",
        measured='$(touch pwned)"; touch pwned #',
        expected="expected.json",
        output="hostile",
    )
    assert shop.bash(script, **variables).returncode == 2
    assert not list(shop.at.rglob("pwned"))


def test_the_action_runs_a_profile_and_never_passes_what_it_cannot_see(
    shop: Shop, tmp_path: Path
) -> None:
    """The scripted server says no block size, so hits cannot be split by cause: INCONCLUSIVE."""
    with scripted_server(tmp_path) as server:
        script, variables = step(
            "Run and judge", profile="small.yaml", url=server.url, expected="expected.json",
            output="ran", budget="40req",
        )  # fmt: skip
        done = shop.bash(script, **variables)
        assert len(server.truth_of(40)) == 40
    assert done.returncode == 3, done.stderr
    assert (shop.at / "github-output").read_text().splitlines()[-2] == "verdict=INCONCLUSIVE"
    codes = [
        one["code"] for one in json.loads((shop.at / "ran" / "gate.json").read_text())["reasons"]
    ]
    assert "not_reported" in codes


def test_the_gitlab_job_runs_as_it_stands_in_the_documents(shop: Shop, tmp_path: Path) -> None:
    """Only the model, the address, and what takes hours are ours."""
    job = yaml.safe_load(_block("# .gitlab-ci.yml"))["prelaunch"]
    script = "\n".join(job["script"])
    for theirs, ours in (("chat-assistant", "small.yaml"), ("20x", "1x")):
        assert theirs in script
        script = script.replace(theirs, f"{ours}")
    with scripted_server(tmp_path) as server:
        done = shop.bash(script, MODEL=shop.tokenizer, URL=server.url)
    assert done.returncode in (1, 3), done.stderr
    kept = [shop.at / path for path in job["artifacts"]["paths"]]
    assert [path for path in kept if not path.is_file()] == []
    junit = ET.parse(shop.at / job["artifacts"]["reports"]["junit"]).getroot()
    assert junit.get("tests") == str(len(CODES))


def test_the_documented_thresholds_are_the_defaults(shop: Shop) -> None:
    from loadkit.thresholds import Thresholds

    policy = read_policy(shop.at / "gate.yaml")
    assert policy.thresholds == Thresholds()
    assert policy.slo is not None
    written = yaml.safe_load(_block("# gate.yaml"))
    assert set(written) == {"schema", "slo", *Thresholds.model_fields}


def test_every_code_stands_in_the_documents() -> None:
    assert [code for code in CODES if f"| `{code}` |" not in DOCS] == []
