"""Runs a plan: checks the endpoint, starts Locust, follows its journals, has the folder made.

Must not import locust: this is the parent process. A run's working folder lies beside the result
under a hidden name, private to its owner, and goes away once the run folder is made.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loadkit.client.control import ControlPlane
from loadkit.client.endpoint import Endpoint
from loadkit.client.secret import Secret
from loadkit.core.errors import CannotMeasure, InputError
from loadkit.core.tokenizer import load_tokenizer
from loadkit.locust_users.preparing import Choices, observe_before, prepare
from loadkit.locust_users.process import Address, LocustProcess
from loadkit.locust_users.settings import Settings, WorkerStatus, WorkFolder
from loadkit.locust_users.work import closed_context, kept_if_unwritten, make_work_folder
from loadkit.profiles import Profile
from loadkit.runs.context import CounterSample, RunContext
from loadkit.runs.folder import check_free, finish_run
from loadkit.runs.journal import read_on
from loadkit.runs.template import TemplateComparison
from loadkit.traffic.plan import TrafficPlan

POLL_S = 0.25
# The server's counters in mid-run: often enough to see one that stands still or starts again.
SAMPLE_S = 2.0
# Locust must have begun within this, and must have left so long after its workers' end or limit.
STARTUP_S = 60.0
GRACE_S = 20.0
# Answers among which the first of each kind are looked for while the run goes on.
MAX_COMPARED = 500
# Workers from elsewhere are started by hand.
WORKERS_S = 600.0
WEB_AT: Address = ("127.0.0.1", 8089)
NO_CHOICES = Choices()
Progress = Callable[[int, int], None]
Tell = Callable[[str], None]


def say(text: str) -> None:
    """A line on stderr."""
    print(f"loadkit: {text}", file=sys.stderr, flush=True)


class FirstAnswers:
    """Compares the first answers' prompts with the tokenizer's while the run goes on, and says at once
    that they differ, once. Does nothing without a tokenizer."""

    def __init__(self, work: WorkFolder, tokenizer: str | None, tell: Tell):
        self._work, self._tell = work, tell
        self._comparison: TemplateComparison | None = None
        if tokenizer is not None:
            self._comparison = TemplateComparison(load_tokenizer(tokenizer))
        self._read: dict[Path, int] = {}
        self._num_seen = 0

    def look(self) -> None:
        """Read what the journals have more than at the last look."""
        if self._comparison is None:
            return
        for path in self._work.journals():
            records, self._read[path] = read_on(path, self._read.get(path, 0))
            self._comparison.add(records)
            self._num_seen += len(records)
        found = self._comparison.result
        if found is not None and found.different:
            by_ids = (
                "the prediction is made of the server's own token ids, if all answers have them"
            )
            by_count = "the prediction will be wrong: give --tokenizer the served model's folder"
            self._tell(f"{found.message}; {by_ids if found.by == 'token_ids' else by_count}")
        if self._num_seen >= MAX_COMPARED or (found is not None and found.different):
            self._comparison = None


@dataclass(frozen=True, slots=True)
class _Load:
    """A run that has passed its checks, in its working folder."""

    work: WorkFolder
    settings: Settings
    num_requests: int
    on_progress: Progress | None
    told: set[str]

    def report(self) -> list[WorkerStatus]:
        statuses = self.work.statuses()
        for note in self.work.notes():
            if note not in self.told:
                self.told.add(note)
                say(note)
        if self.on_progress is not None:
            self.on_progress(sum(status.done for status in statuses), self.num_requests)
        return statuses


def run_profile(
    profile: Profile,
    plan: TrafficPlan,
    *,
    url: str,
    out: Path,
    choices: Choices = NO_CHOICES,
    api_key: Secret | None = None,
    on_progress: Progress | None = None,
    tell: Tell = say,
    web_at: Address = WEB_AT,
    master: Address | None = None,
    token: str | None = None,
) -> dict[str, Any]:
    """Drive `plan` at the endpoint, write the run folder `out`, return run.json's content.

    on_progress(done, scheduled) is called a few times a second. tell(text): what the user should know
    at once, such as a tokenizer that is not the server's. With `choices.web` the run starts in
    the browser and ends with Ctrl-C, or when the interface at `web_at` is closed. master: the address
    at which this run waits for `choices.processes` workers that are started elsewhere (`run_worker`)
    with the same token; None: it starts them itself.

    Ctrl-C in a headless run still writes the folder, marked as interrupted, and is raised again
    with words about what was kept.

    InputError: `out` exists, and what `prepare` refuses. CannotMeasure: Locust failed, or no
    request was sent. A run that lost a worker comes back with status "invalid".
    """
    check_free(out)
    if not plan.sessions:
        raise InputError("the plan has no sessions", where=profile.name)
    for note in plan.notes:
        tell(note)
    choices = replace(choices, remote=master is not None)
    with ControlPlane(Endpoint.parse(url), key=api_key) as control:
        settings, context = prepare(profile, plan, control, choices, api_key)
        with kept_if_unwritten(make_work_folder(out, plan, settings), out) as work:
            process = LocustProcess(
                work, settings, key=api_key, web=web_at, master=master, token=token
            )
            load = _Load(work, settings, plan.num_requests, on_progress, set())
            first = FirstAnswers(work, context.tokenizer, tell)
            closed = _measure(load, process, control, context, first)
            result = finish_run(work.path, out, closed)
    if closed.interrupted:
        counts = result["requests"]
        raise KeyboardInterrupt(f"{counts['ok']} of {counts['scheduled']} requests kept in {out}")
    return result


def _measure(
    load: _Load,
    process: LocustProcess,
    control: ControlPlane,
    context: RunContext,
    first: FirstAnswers,
) -> RunContext:
    """Drive the load to its end; the context with all that was seen meanwhile."""
    work = load.work
    observe_before(context, control)
    work.write_context(context)
    interrupted = False
    with process:
        try:
            _follow(load, process, first, _Sampler(control, context))
        except KeyboardInterrupt:
            interrupted = True
    if not work.path.is_dir():
        raise CannotMeasure(
            f"{work.path} was removed while the run went on, and what was measured with it"
        )
    if work.started() is None or not work.has_journals():
        if interrupted:
            raise KeyboardInterrupt
        raise CannotMeasure(
            f"Locust ended (exit code {process.exit_code()}) before it sent anything; its log:\n"
            f"{process.log_tail()}",
            code="too_few_samples",
        )
    load.report()
    first.look()
    return closed_context(
        work,
        context,
        after=control.prefix_counters(),
        interrupted=interrupted and not load.settings.web,
    )


class _Sampler:
    """Reads the server's counters now and then, if it showed any before the run."""

    def __init__(self, control: ControlPlane, context: RunContext):
        self._control, self._context = control, context
        self._due = 0.0 if context.counters_before is not None else math.inf

    def maybe_read(self, start_s: float | None) -> None:
        """start_s: monotonic time of the run's start; None: it has not begun."""
        asked = time.monotonic()
        if start_s is None or asked < max(self._due, start_s):
            return
        counters = self._control.prefix_counters()
        got = time.monotonic()
        self._due = got + SAMPLE_S
        if counters is not None:
            sample = CounterSample(asked - start_s, got - start_s, counters)
            self._context.counter_samples.append(sample)


def _follow(load: _Load, process: LocustProcess, first: FirstAnswers, sampler: _Sampler) -> None:
    """Report progress until Locust ends. A headless run that hangs is left behind to be ended."""
    begun = time.monotonic()
    while process.wait(POLL_S) is None and load.work.path.is_dir():
        statuses = load.report()
        first.look()
        start = load.work.started()
        sampler.maybe_read(None if start is None else start.monotonic_s)
        if not load.settings.web and time.monotonic() > _deadline(load, statuses, begun):
            return


def _deadline(load: _Load, statuses: list[WorkerStatus], begun: float) -> float:
    """Monotonic time past which Locust hangs, as far as the working folder shows now."""
    start = load.work.started()
    if start is None:
        return begun + (WORKERS_S if load.settings.remote else STARTUP_S)
    if sum(status.finished for status in statuses) == load.settings.processes:
        return start.monotonic_s + max(status.elapsed_s for status in statuses) + GRACE_S
    return start.monotonic_s + load.settings.max_duration_s + GRACE_S
