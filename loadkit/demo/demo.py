"""What the demo does, step by step, each step through the same functions as the other verbs."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from loadkit import profiles
from loadkit.analysis import analyze
from loadkit.client.control import ControlPlane
from loadkit.client.endpoint import Endpoint
from loadkit.core.errors import CannotMeasure, InputError
from loadkit.core.tokenizer import Tokenizer, load_tokenizer
from loadkit.demo.server import reference_server
from loadkit.forecast import forecast
from loadkit.gate import decide_folder
from loadkit.locust_users.launcher import run_profile
from loadkit.locust_users.preparing import Choices
from loadkit.profiles import Profile
from loadkit.report import write_report
from loadkit.traces import read_log
from loadkit.traffic.build import build_plan
from loadkit.traffic.log import write_log
from loadkit.traffic.plan import TrafficPlan

BLOCK_SIZE = 16
NUM_BLOCKS = 2048

# Small enough for minutes on two busy cores. With so few sessions, organic repeats (people who ask
# the same question word for word) would hardly show at the profile's 5%, so there are more of them.
SHORT_ANSWERS = "request.max_tokens={distribution: constant, mean: 16, max: 16, source: demo}"
PRODUCTION_SETTINGS = (
    "traffic.sessions=24",
    "traffic.turns.max=6",
    "traffic.repeat_share=0.25",
    "traffic.repeat_questions=1",
    "traffic.think_s={distribution: constant, mean: 0.2, max: 1, source: demo}",
    "arrivals={loop: closed, users: 3}",
    SHORT_ANSWERS,
)
STAGING_SETTINGS = (
    "traffic.corpus=null",
    "traffic.message_sentences=null",
    "arrivals.users=3",
    SHORT_ANSWERS,
)


class Show(Protocol):
    """Where the demo tells how far it is."""

    def stage(self, text: str) -> None:
        """A new stage begins; the one before it has ended."""

    def detail(self, text: str) -> None:
        """One line about the running stage."""

    def progress(self, done: int, total: int) -> None:
        """Requests finished in the running stage."""


@dataclass(frozen=True)
class DemoResult:
    """The demo's outcome; the dictionaries are the files of the same name in `folder`."""

    folder: Path
    staging: dict[str, Any]
    production: dict[str, Any]
    expected: dict[str, Any]
    gate: dict[str, Any]

    @property
    def failures(self) -> list[str]:
        """What kept the demonstration from working; empty when it did."""
        found = []
        if self.gate["verdict"] != "FAIL" or "replay_mirage" not in _codes(self.gate):
            found.append("the gate did not fail staging as a replay mirage")
        for name, run in (("staging", self.staging), ("production", self.production)):
            if run["status"] != "ok":
                found.append(f"the {name} run is invalid: {run.get('reasons')}")
            if run["reconciliation"]["agrees"] is not True:
                found.append(f"{name}: usage, Prometheus and prediction do not agree")
        return found

    @property
    def worked(self) -> bool:
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": "loadkit.demo/1",
            "folder": str(self.folder),
            "worked": self.worked,
            "failures": self.failures,
            "gate": self.gate,
            "staging": self.staging["split"],
            "production": self.production["split"],
            "expected": self.expected["hit_rate"],
        }


def run_demo(out: Path, *, model: str | None, force: bool, show: Show) -> DemoResult:
    """Run the demonstration; everything it makes is in `out`, or nothing when it fails early."""
    if out.exists() and not force:
        raise InputError("already there", where=out, remedy="use --force or another -o")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        result = _run(work, model, show)
        _replace(work, out)
    except KeyboardInterrupt:  # of a run: its folder goes with all the rest
        shutil.rmtree(work, ignore_errors=True)
        raise KeyboardInterrupt from None
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return DemoResult(out, result.staging, result.production, result.expected, result.gate)


def _run(work: Path, model: str | None, show: Show) -> DemoResult:
    show.stage("Starting the reference server")
    with reference_server(
        work / "server.log",
        model=model,
        num_blocks=NUM_BLOCKS,
        block_size=BLOCK_SIZE,
        say=show.detail,
    ) as url:
        tokenizer = load_tokenizer(model or _default_model())
        show.stage("Planning production-like and staging traffic")
        traffic = _plan(work)
        show.stage("Analyzing the production log")
        expected = _expect(work, tokenizer)
        runs = {}
        for name, (profile, plan) in traffic.items():
            show.stage(f"Sending {name} traffic")
            _fresh_cache(url)
            runs[name] = run_profile(
                profile,
                plan,
                url=url,
                out=work / name,
                choices=Choices(tokenizer=tokenizer.name),
                on_progress=show.progress,
            )
    show.stage("Does staging look like production?")
    gate = decide_folder(work / "staging", expected).to_dict()
    _write_json(work / "gate.json", gate)
    write_report(
        work / "report.html",
        staging=work / "staging",
        production=work / "production",
        expected=expected,
        gate=gate,
    )
    return DemoResult(work, runs["staging"], runs["production"], expected, gate)


def _default_model() -> Path:
    """The folder that the server has made ready."""
    from reference_server.weights import prepare_default_model

    return prepare_default_model()


def _plan(work: Path) -> dict[str, tuple[Profile, TrafficPlan]]:
    """Both workloads with their logs in `work`; staging replays prompts of the production log."""
    production = profiles.load("chat-assistant", PRODUCTION_SETTINGS)
    plan = build_plan(production)
    log = work / "production.jsonl"
    write_log(plan, log)
    staging = profiles.load(
        "replay-smoke", (*STAGING_SETTINGS, f"traffic.log={json.dumps(str(log))}")
    )
    staging_plan = build_plan(staging)
    write_log(staging_plan, work / "staging.jsonl")
    return {"production": (production, plan), "staging": (staging, staging_plan)}


def _expect(work: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """Analyses of both logs and the forecast of production, written to `work`."""
    traces = {
        name: read_log(
            [work / f"{name}.jsonl"], format="openai", tokenizer=tokenizer, block_size=BLOCK_SIZE
        ).trace
        for name in ("production", "staging")
    }
    for name, trace in traces.items():
        _write_json(work / f"{name}.analysis.json", analyze(trace, [NUM_BLOCKS]).to_dict())
    expected = forecast(
        traces["production"],
        traffic=1.0,
        capacity_blocks=NUM_BLOCKS,
        tokenizer_fingerprint=tokenizer.fingerprint,
    ).to_dict()
    _write_json(work / "expected.json", expected)
    return expected


def _fresh_cache(url: str) -> None:
    with ControlPlane(Endpoint.parse(url)) as control:
        answer = control.reset_prefix_cache()
    if answer != "reset":
        raise CannotMeasure("the server did not reset its prefix cache", code="warm_cache")


def _replace(work: Path, out: Path) -> None:
    """Put the finished folder in place of an earlier one; the earlier one is removed last."""
    old = out.with_name(f".{out.name}-old-{os.getpid()}")
    if out.exists():
        out.rename(old)
    work.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", "utf-8")


def _codes(gate: Mapping[str, Any]) -> set[str]:
    return {reason["code"] for reason in gate["reasons"]}
