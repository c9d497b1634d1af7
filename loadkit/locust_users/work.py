"""A run's private working folder: made, read once the run is over, and nothing measured lost with it.

Must not import locust: this is the parent process.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from loadkit.client.prometheus import PrefixCounters
from loadkit.core.errors import CannotMeasure, InputError, LoadkitError, what_failed, what_to_do
from loadkit.locust_users.settings import Settings, WorkFolder
from loadkit.runs.context import RunContext
from loadkit.runs.journal import read_journal
from loadkit.traffic.plan import TrafficPlan, write_plan

MARK = ".work-"
TOKEN_IDS_REFUSED = (
    "the server refused requests with return_token_ids, so they were sent without it: replies are"
    " known as text alone, and prompts as the tokenizer makes them"
)
WORKER_PREFIX = ".loadkit-worker-"  # of a worker whose master is elsewhere


def make_work_folder(out: Path, plan: TrafficPlan, settings: Settings) -> WorkFolder:
    """A private (0700) folder beside `out`, with the plan and the settings in it."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _try_to_make(out)
        path = Path(tempfile.mkdtemp(prefix=f".{out.name}{MARK}", dir=out.parent.resolve()))
    except OSError as error:
        raise _cannot_write(out, error) from error
    work = WorkFolder(path)
    try:
        work.hold()
        work.create(settings)
        write_plan(plan, work.plan)
    except OSError as error:
        shutil.rmtree(path, ignore_errors=True)
        raise _cannot_write(out, error) from error
    return work


def _try_to_make(out: Path) -> None:
    """Make `out` as the finished run folder will be made, and take it away again: what would fail at
    the end (a mount point, the current folder, a folder of somebody else's) fails now."""
    was_there = out.exists()
    empty = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent.resolve()))
    try:
        empty.replace(out)
    except OSError:
        empty.rmdir()
        raise
    if not was_there:
        out.rmdir()


def _cannot_write(out: Path, error: OSError) -> InputError:
    return InputError(
        f"cannot be written: {what_failed(error)}",
        where=out,
        remedy=f"{what_to_do(error)}, or choose another folder with -o",
    )


@contextmanager
def kept_if_unwritten(work: WorkFolder, out: Path) -> Iterator[WorkFolder]:
    """The working folder goes away at the end, unless its journals are all that is left of a run
    whose folder could not be written, be it for a full disk, a name taken meanwhile, an impatient
    Ctrl-C or a fault of ours: then the error says where they are. An OSError of anything done
    meanwhile is told by its own name, with what to do."""
    kept = f"the journals of what was measured are kept in {work.path}"
    try:
        yield work
    except (LoadkitError, OSError, KeyboardInterrupt) as error:
        what, remedy = str(error), ""
        if isinstance(error, OSError):
            what, remedy = f"the run was broken off: {what_failed(error)}", what_to_do(error)
        if _has_measured(work) and not isinstance(
            error, CannotMeasure
        ):  # which says that it has not
            again = f"{kept}: loadkit run --recover {work.path} -o DIR"
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(again) from None
            remedy = f"{remedy}; {again}" if remedy else again
            raise CannotMeasure(what, remedy=remedy) from error
        shutil.rmtree(work.path, ignore_errors=True)
        if isinstance(error, OSError):
            raise CannotMeasure(what, remedy=remedy) from error
        raise
    except BaseException as error:
        error.add_note(kept)
        raise
    shutil.rmtree(work.path, ignore_errors=True)


def _has_measured(work: WorkFolder) -> bool:
    """Also when the folder can no longer be read: what cannot be looked at is not thrown away."""
    try:
        return work.started() is not None and work.has_journals()
    except (OSError, LoadkitError):
        return True


def closed_context(
    work: WorkFolder,
    draft: RunContext,
    *,
    after: PrefixCounters | None,
    interrupted: bool = False,
) -> RunContext:
    """`draft` with what the folder shows once the workers have ended, in the words of the run
    folder; the same whether the run ended as planned or its launcher was killed. CannotMeasure if no
    load started."""
    start, statuses = work.started(), work.statuses()
    if start is None or not work.has_journals():
        raise CannotMeasure("the run ended before it sent anything", code="too_few_samples")
    refused = [TOKEN_IDS_REFUSED] if any(one.token_ids_refused for one in statuses) else []
    return msgspec.structs.replace(
        draft,
        started_unix_s=start.unix_s,
        duration_s=max((status.elapsed_s for status in statuses), default=None) or _ended_s(work),
        mutations=sum(status.mutations for status in statuses),
        compactions=sum(status.compactions for status in statuses),
        unasked=sum(status.unasked for status in statuses),
        missing_workers=draft.processes - sum(status.finished for status in statuses),
        interrupted=interrupted,
        stalls=[status.stalls for status in statuses if status.stalls is not None],
        counters_after=after,
        notes=[*draft.notes, *dict.fromkeys(work.notes()), *refused],
    )


def _ended_s(work: WorkFolder) -> float:
    """The last time in the journals, for workers that never reported how far they were."""
    times = (
        at
        for path in (work.path / "journals").glob("*.journal")
        for record in read_journal(path).records
        for at in (record.completed_s, record.last_token_s, record.sent_s)
        if at is not None
    )
    return max(times, default=0.0)
