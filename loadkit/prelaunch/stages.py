"""The stages of `loadkit prelaunch`. A finished one is kept and said; the gate and the report are
made anew each time, since thresholds may have changed and they cost nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Any, Protocol

from msgspec.structs import replace

from loadkit.client.control import ControlPlane, ModelCard
from loadkit.client.endpoint import Endpoint
from loadkit.client.secret import Secret
from loadkit.core.cache_layout import config_file, read_layout
from loadkit.core.errors import CannotMeasure, InputError
from loadkit.core.tokenizer import load_tokenizer
from loadkit.core.units import parse_capacity
from loadkit.demo.server import reference_server
from loadkit.forecast import forecast
from loadkit.gate import Verdict, decide_folder, read_json
from loadkit.gate.inputs import Expected, checked, read_run
from loadkit.gate.policy import policy_of
from loadkit.locust_users.launcher import run_profile
from loadkit.locust_users.preparing import Choices, served_model
from loadkit.prelaunch.state import age, digest, is_finished, kept, open_folder, set_aside
from loadkit.profiles import Profile
from loadkit.report import write_report, write_whole
from loadkit.traces import read_log
from loadkit.traffic.plan import TrafficPlan

# Of the reference server that is started where no --url is given.
BLOCK_SIZE, NUM_BLOCKS = 16, 2048


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked. expected: a forecast made before, instead of `logs`. url None: the reference
    server, started for the run. capacity, tokenizer, block_size, model None: what the server says.
    model_config: of the served model, whose block size counts where the server says none."""

    profile: Profile
    plan: TrafficPlan
    out: Path
    logs: tuple[Path, ...] = ()
    expected: Path | None = None
    log_format: str = "auto"
    traffic: float = 1.0
    horizon_s: float | None = None
    capacity: str | None = None
    url: str | None = None
    model: str | None = None
    tokenizer: str | None = None
    block_size: int | None = None
    model_config: Path | None = None
    processes: int = 1
    key: Secret | None = None
    policy: Path | None = None
    baseline: Path | None = None

    def inputs(self) -> dict[str, Any]:
        """All that the forecast and the run depend on; the gate's own files are not among it."""
        return {
            "profile": self.profile.model_dump(mode="json", by_alias=True),
            "logs": {path.name: digest(path) for path in self.logs},
            "expected": None if self.expected is None else digest(self.expected),
            "model_config": None
            if self.model_config is None
            else digest(config_file(self.model_config)),
            **{
                name: getattr(self, name)
                for name in (
                    *("log_format", "traffic", "horizon_s", "capacity", "url", "model"),
                    *("tokenizer", "block_size", "processes"),
                )
            },
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """stages: name -> "made" or "kept", in order."""

    verdict: Verdict
    stages: dict[str, str]
    report: Path


class Show(Protocol):
    """Where the stages tell how far they are."""

    def stage(self, text: str) -> None:
        """A stage begins, or was found finished."""

    def progress(self, done: int, total: int) -> None:
        """Requests finished in the running stage."""


@dataclass(frozen=True, slots=True)
class _Served:
    """The endpoint, and what the forecast has to be for."""

    url: str
    card: ModelCard
    tokenizer: str | None


def prelaunch(job: Job, show: Show) -> Outcome:
    """Forecast, run, gate, report; the verdict's exit code is the command's.

    InputError for what cannot be used, CannotMeasure (nothing is sent) if the forecast is refused,
    or if the run cannot be made.
    """
    if not job.logs and job.expected is None:
        remedy = "name production's log with --log, or a forecast with --expected"
        raise InputError("no production to expect", where="--log", remedy=remedy)
    stages: dict[str, str] = {}
    expected_file, folder = job.out / "expected.json", job.out / "run"
    open_folder(job.out, job.inputs())
    known, ran = expected_file.is_file(), is_finished(folder)
    serving = _no_server if known and ran else (lambda: _server(job, show))
    with serving() as served:
        if known:
            show.stage(f"Forecast: kept from {age(expected_file)} ({expected_file})")
        else:
            of = ", of the log's prompts without its replies" if _replays(job) else ""
            show.stage(f"Forecast: what production should see{of}")
            _write(expected_file, _forecast(job, served, show))
        expected = kept(read_json, expected_file)
        kept(lambda path: checked(expected, Expected, path), expected_file)
        stages["forecast"] = "kept" if known else "made"
        _require_rate(expected, expected_file)
        if ran:
            show.stage(f"Run: kept from {age(folder)} ({folder}); nothing was sent this time")
        else:
            assert served is not None
            set_aside(folder, show.stage)
            show.stage(f"Run: {job.plan.num_requests:,} requests of {job.profile.name}")
            _run(job, served, folder, show.progress)
        stages["run"] = "kept" if ran else "made"
    return _judge(job, expected, folder, stages, show)


def _judge(
    job: Job, expected: dict[str, Any], folder: Path, stages: dict[str, str], show: Show
) -> Outcome:
    show.stage("Gate and report")
    verdict = decide_folder(
        folder,
        expected,
        baseline=job.baseline,
        policy_file=job.policy,
        where=job.out / "expected.json",
    )
    _write(job.out / "gate.json", verdict.to_dict())
    page = job.out / "report.html"
    policy = policy_of(read_run(folder), job.policy)
    write_report(page, staging=folder, expected=expected, gate=verdict.to_dict(), policy=policy)
    return Outcome(verdict, stages | {"gate": "made", "report": "made"}, page)


@contextmanager
def _no_server() -> Iterator[None]:
    yield None


@contextmanager
def _server(job: Job, show: Show) -> Iterator[_Served]:
    """The endpoint that was named, else the reference server for as long as it is needed."""
    if job.url is not None:
        yield _Served(job.url, _card(job, job.url), job.tokenizer)
        return
    show.stage("Starting the reference server (no --url was given)")
    with _reference(job) as url:
        yield _Served(url, _card(job, url), job.tokenizer or job.model or _default_model())


def _reference(job: Job) -> AbstractContextManager[str]:
    return reference_server(
        job.out / "server.log",
        model=job.model,
        num_blocks=NUM_BLOCKS,
        block_size=job.block_size or BLOCK_SIZE,
        say=lambda _: None,
    )


def _default_model() -> str:
    from reference_server.weights import prepare_default_model

    return str(prepare_default_model())


def _card(job: Job, url: str) -> ModelCard:
    """The served model, with what only /metrics tell of its cache (vLLM, SGLang)."""
    with ControlPlane(Endpoint.parse(url), key=job.key) as control:
        card = served_model(control, job.model if job.url else None, url)
        setup = None if card.num_blocks is not None else control.cache_setup()
    if setup is None:
        return card
    blocks = None if setup.num_blocks is None else setup.num_blocks // setup.engines
    size = card.block_size or setup.block_size
    return replace(card, block_size=size, num_blocks=blocks, kept_blocks=setup.kept_blocks)


def _cache_of(job: Job, card: ModelCard, show: Show) -> tuple[int | None, tuple[int, ...]]:
    """The block size that counts, as asked, else the server's, else the model's, and where states and
    windows are kept (`Trace.kept_blocks`). Says which size it is, and what contradicts it."""
    size = job.block_size or card.block_size
    layout = None if job.model_config is None else read_layout(job.model_config)
    if layout is None:
        if size is not None and size == card.block_size:
            show.stage(
                f"The server's cache has blocks of {size:,} tokens: the forecast is for them"
            )
        return size, card.kept_blocks
    if size is None:
        known = f"blocks of {layout.block_size:,} tokens" if layout.block_size else "no block size"
        show.stage(f"The server tells no block size; --model-config gives {known}: {layout.why}")
        for note in layout.notes:
            show.stage(note)
        return layout.block_size, layout.kept_blocks
    if layout.block_size not in (None, size):
        whose = "--block-size" if job.block_size else "the server"
        show.stage(
            f"--model-config gives blocks of {layout.block_size:,} tokens, {whose} says {size:,},"
            f" which counts ({layout.why})"
        )
    return size, card.kept_blocks


def _forecast(job: Job, served: _Served | None, show: Show) -> dict[str, Any]:
    """The named forecast as it is; else one of the log, for this server's setting."""
    if job.expected is not None:
        found = read_json(job.expected)
        checked(found, Expected, job.expected)
        return found
    assert served is not None
    block_size, kept_blocks = _cache_of(job, served.card, show)
    tokenizer = load_tokenizer(served.tokenizer) if served.tokenizer else None
    log = read_log(
        list(job.logs), format=job.log_format, tokenizer=tokenizer, block_size=block_size
    )
    trace = log.trace.without_replies() if _replays(job) else log.trace
    if int(trace.prompt_tokens.max(initial=0)) <= trace.block_size:
        shortest = trace.block_size + 1
        show.stage(f"No prompt of the log reaches {shortest:,} tokens, the shortest that can hit")
    answer = forecast(
        replace_fields(trace, kept_blocks=kept_blocks),
        job.traffic,
        _capacity(job, served.card, log.trace.block_size),
        horizon_s=job.horizon_s,
        tokenizer_fingerprint=log.tokenizer_fingerprint,
    ).to_dict()
    answer["log"]["model"] = served.card.id
    return answer


def _replays(job: Job) -> bool:
    """A replayed log's replies return as history; this server need not have computed them."""
    traffic = job.profile.traffic
    return traffic.kind == "replay" and traffic.log is not None


def _capacity(job: Job, card: ModelCard, block_size: int) -> int | None:
    """In blocks of the log: what was asked for, else what the server says."""
    if job.capacity is not None:
        return parse_capacity(job.capacity, block_size)
    return card.num_blocks


def _require_rate(expected: dict[str, Any], where: Path) -> None:
    """Without a rate to compare with, the run would cost tokens and decide nothing."""
    if expected.get("status") != "ok":
        raise CannotMeasure(
            f"the forecast is {expected.get('status')}: {expected.get('needs')}; nothing was sent",
            code="forecast_refused",
            remedy=f"see {where}",
        )


def _run(job: Job, served: _Served, folder: Path, on_progress: Callable[[int, int], None]) -> None:
    run_profile(
        job.profile,
        job.plan,
        url=served.url,
        out=folder,
        choices=Choices(served.card.id, served.tokenizer, _block_size(job, served), job.processes),
        api_key=job.key,
        on_progress=on_progress,
    )


def _block_size(job: Job, served: _Served) -> int | None:
    """What the run must be told: the model's block size if neither user nor server names one."""
    if job.block_size is None and served.card.block_size is None and job.model_config is not None:
        return read_layout(job.model_config).block_size
    return job.block_size


def _write(path: Path, data: dict[str, Any]) -> None:
    write_whole(path, json.dumps(data, indent=2, allow_nan=False) + "\n")
