"""A run whose launcher was killed: its folder, rebuilt from what its workers wrote."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from loadkit.core.errors import InputError
from loadkit.locust_users.settings import WorkFolder
from loadkit.locust_users.work import MARK, WORKER_PREFIX, closed_context
from loadkit.runs.folder import check_free, finish_run

NOTE = (
    "recovered: this folder was made of what the workers had written when the run was cut off; the "
    "server's counters after it are not known"
)


def abandoned(folder: Path) -> list[Path]:
    """Working folders in `folder` that nobody looks after any more."""
    found = [*folder.glob(f".*{MARK}*"), *folder.glob(f"{WORKER_PREFIX}*")]
    return sorted(path for path in found if path.is_dir() and not WorkFolder(path).is_held())


def tell_of_abandoned(folder: Path) -> None:
    """A line on stderr for each run in `folder` that was cut off and never made its own."""
    for left in abandoned(folder) if folder.is_dir() else ():
        print(
            f"loadkit: {left} holds the records of a run that was cut off; make its folder with "
            f"`loadkit run --recover {left} -o DIR`",
            file=sys.stderr,
        )


def recover(path: Path, out: Path) -> dict[str, Any]:
    """Make the run folder `out` of a working folder, which then goes away; returns run.json.

    Journals alone are enough: what else is damaged or missing is made up for by them.
    InputError: no such working folder, one that is still looked after, or `out` exists.
    CannotMeasure: nothing was sent in it.
    """
    check_free(out)
    work = WorkFolder(path)
    if work.is_held():
        raise InputError(
            "the run is still going on", where=path, remedy="wait for its end, or interrupt it"
        )
    head = work.head()  # checked by its sum, unlike the file
    context = work.context() if head is None else head.context
    if NOTE not in context.notes:
        context.notes.append(NOTE)
    closed = closed_context(work, context, after=None, interrupted=True)
    result = finish_run(path, out, closed)
    shutil.rmtree(path, ignore_errors=True)
    return result
