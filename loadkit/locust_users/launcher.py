"""Runs a plan: checks the endpoint, starts Locust, follows its journals, has the folder made.

Must not import locust: this is the parent process. A run's working folder lies beside the result
under a hidden name, private to its owner, and goes away once the run folder is made.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from loadkit.client.control import ControlPlane, ModelCard
from loadkit.client.endpoint import Endpoint
from loadkit.client.prometheus import PrefixCounters
from loadkit.client.secret import Secret
from loadkit.core.errors import CannotMeasure, InputError
from loadkit.core.tokenizer import load_tokenizer
from loadkit.locust_users.process import LocustProcess
from loadkit.locust_users.settings import Settings, WorkerStatus, WorkFolder
from loadkit.locust_users.work import kept_if_unwritten, make_work_folder
from loadkit.profiles import ClosedLoop, Profile
from loadkit.runs.context import RunContext
from loadkit.runs.folder import check_free, finish_run
from loadkit.traffic.plan import TrafficPlan

POLL_S = 0.25
# Locust must have begun within this, and must have left so long after its workers' end or limit.
STARTUP_S = 60.0
GRACE_S = 20.0
DISTRIBUTIONS = ("loadkit-llm", "locust", "httptools")
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Job:
    """A run that has passed its checks. None in tokenizer and block_size: not known."""

    profile: Profile
    plan: TrafficPlan
    settings: Settings
    card: ModelCard
    endpoint: Endpoint
    key: Secret | None
    tokenizer: str | None
    block_size: int | None


@dataclass(slots=True)
class _Measured:
    """What the launcher saw while the load ran."""

    before: PrefixCounters | None
    after: PrefixCounters | None
    duration_s: float
    started_unix_s: float
    mutations: int
    missing_workers: int
    interrupted: bool


def run_profile(
    profile: Profile,
    plan: TrafficPlan,
    *,
    url: str,
    out: Path,
    model: str | None = None,
    tokenizer: str | None = None,
    block_size: int | None = None,
    processes: int = 1,
    web: bool = False,
    web_port: int = 8089,
    web_host: str = "127.0.0.1",
    api_key: Secret | None = None,
    expected_hit_rate: dict[str, float] | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Drive `plan` at the endpoint, write the run folder `out`, return run.json's content.

    model: None takes the only one the endpoint lists. block_size: None takes what the endpoint
    says. on_progress(done, scheduled) is called a few times a second. With `web` the run starts in
    the browser and ends with Ctrl-C, or when the interface is closed; `expected_hit_rate`
    ({estimate, low, high}) is the band behind its live split.

    Ctrl-C in a headless run still writes the folder, marked as interrupted, and is raised again
    with words about what was kept.

    InputError: `out` exists, no server, a wrong key, no such model, another tokenizer or block size
    than the server's. CannotMeasure: Locust failed,
    or no request was sent. A run that lost a worker comes back with status "invalid".
    """
    check_free(out)
    if not plan.sessions:
        raise InputError("the plan has no sessions", where=profile.name)
    endpoint = Endpoint.parse(url)
    with ControlPlane(endpoint, key=api_key) as control:
        card = choose_model(control.list_models(), model, endpoint.url)
        settings = make_settings(
            profile,
            plan,
            endpoint,
            card,
            processes=processes,
            web=web,
            expected_hit_rate=expected_hit_rate,
        )
        block = choose_block_size(card, block_size, endpoint.url)
        check_tokenizer(card, tokenizer, endpoint.url)
        job = _Job(profile, plan, settings, card, endpoint, api_key, tokenizer, block)
        with kept_if_unwritten(make_work_folder(out, plan, settings), out) as work:
            process = LocustProcess(
                work, settings, key=api_key, web_host=web_host, web_port=web_port
            )
            measured = _measure(job, work, process, control, on_progress)
            result = finish_run(work.path, out, _context(job, measured))
    if measured.interrupted:
        counts = result["requests"]
        raise KeyboardInterrupt(f"{counts['ok']} of {counts['scheduled']} requests kept in {out}")
    return result


def choose_model(cards: list[ModelCard], wanted: str | None, url: str) -> ModelCard:
    """The model to ask for. InputError when it is not there, or there is more than one to choose."""
    listed = ", ".join(card.id for card in cards[:8])
    if wanted is None:
        if len(cards) != 1:
            what = f"the server lists {len(cards)} models" + (f": {listed}" if cards else "")
            raise InputError(what, where=url, remedy="name one with --model")
        return cards[0]
    for card in cards:
        if card.id == wanted:
            return card
    if cards:
        raise InputError(f"no model {wanted!r}", where=url, remedy=f"it lists: {listed}")
    return ModelCard(wanted)


def choose_block_size(card: ModelCard, wanted: int | None, url: str) -> int | None:
    """The server's block size, else the one given. InputError if they differ: no prediction made
    with another size could come true."""
    if None not in (wanted, card.block_size) and wanted != card.block_size:
        raise InputError(
            f"the server's cache has blocks of {card.block_size} tokens, --block-size says {wanted}",
            where=url,
            remedy="leave out --block-size",
        )
    return card.block_size or wanted


def check_tokenizer(card: ModelCard, tokenizer: str | None, url: str) -> None:
    """InputError, before anything is sent, for a tokenizer that is not to be had or not served."""
    if tokenizer is None:
        return
    fingerprint = load_tokenizer(tokenizer).fingerprint
    if card.tokenizer_fingerprint not in (None, fingerprint):
        raise InputError(
            f"the server has another tokenizer than {tokenizer}",
            where=url,
            remedy="give --tokenizer the folder or name of the model that is served",
        )


def make_settings(
    profile: Profile,
    plan: TrafficPlan,
    endpoint: Endpoint,
    card: ModelCard,
    *,
    processes: int,
    web: bool,
    expected_hit_rate: dict[str, float] | None = None,
) -> Settings:
    """Settings for the workers. More processes than users or sessions would have nothing to do."""
    arrivals = profile.arrivals
    users = arrivals.users if isinstance(arrivals, ClosedLoop) else len(plan.sessions)
    return Settings(
        url=endpoint.url,
        model=card.id,
        kind=plan.kind,
        loop=arrivals.loop,
        users=users if arrivals.loop == "closed" else 1,
        processes=max(1, min(processes, users, len(plan.sessions))),
        temperature=profile.request.temperature,
        ignore_eos=profile.request.ignore_eos,
        timeout_s=profile.request.timeout_s,
        max_duration_s=profile.max_duration_s,
        return_token_ids=card.returns_token_ids,
        web=web,
        expected_hit_rate=expected_hit_rate,
    )


def _measure(
    job: _Job,
    work: WorkFolder,
    process: LocustProcess,
    control: ControlPlane,
    on_progress: Progress | None,
) -> _Measured:
    before = control.prefix_counters()
    interrupted = False
    with process:
        try:
            _follow(job, work, process, on_progress)
        except KeyboardInterrupt:
            interrupted = True
    start = work.started()
    if start is None or not work.has_journals():
        if interrupted:
            raise KeyboardInterrupt
        raise CannotMeasure(
            f"Locust ended (exit code {process.exit_code()}) before it sent anything; its log:\n"
            f"{process.log_tail()}",
            code="too_few_samples",
        )
    statuses = work.statuses()
    if on_progress is not None:
        on_progress(sum(status.done for status in statuses), job.plan.num_requests)
    return _Measured(
        before=before,
        after=control.prefix_counters(),
        duration_s=max((status.elapsed_s for status in statuses), default=0.0),
        started_unix_s=start.unix_s,
        mutations=sum(status.mutations for status in statuses),
        missing_workers=job.settings.processes - sum(status.finished for status in statuses),
        interrupted=interrupted and not job.settings.web,
    )


def _follow(
    job: _Job, work: WorkFolder, process: LocustProcess, on_progress: Progress | None
) -> None:
    """Report progress until Locust ends. A headless run that hangs is left behind to be ended."""
    begun = time.monotonic()
    while process.wait(POLL_S) is None:
        statuses = work.statuses()
        if on_progress is not None:
            on_progress(sum(status.done for status in statuses), job.plan.num_requests)
        if not job.settings.web and time.monotonic() > _deadline(job, work, statuses, begun):
            return


def _deadline(job: _Job, work: WorkFolder, statuses: list[WorkerStatus], begun: float) -> float:
    """Monotonic time past which Locust hangs, as far as the working folder shows now."""
    start = work.started()
    if start is None:
        return begun + STARTUP_S
    if sum(status.finished for status in statuses) == job.settings.processes:
        return start.monotonic_s + max(status.elapsed_s for status in statuses) + GRACE_S
    return start.monotonic_s + job.settings.max_duration_s + GRACE_S


def _context(job: _Job, measured: _Measured) -> RunContext:
    settings, plan = job.settings, job.plan
    return RunContext(
        profile=job.profile.model_dump(mode="json", by_alias=True),
        url=job.endpoint.url,
        model=settings.model,
        seed=job.profile.seed,
        started_unix_s=measured.started_unix_s,
        duration_s=measured.duration_s,
        processes=settings.processes,
        loop=settings.loop,
        kind=plan.kind,
        scheduled=plan.num_requests,
        wraps=plan.wraps,
        truncations=plan.truncations,
        mutations=measured.mutations,
        missing_workers=measured.missing_workers,
        interrupted=measured.interrupted,
        tokenizer=job.tokenizer,
        block_size=job.block_size,
        capacity_blocks=job.card.num_blocks,
        server_tokenizer_fingerprint=job.card.tokenizer_fingerprint,
        counters_before=measured.before,
        counters_after=measured.after,
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
