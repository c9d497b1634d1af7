"""What `loadkit run` does besides sending: master and worker, exports."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from loadkit.client.secret import Secret
from loadkit.core.errors import InputError
from loadkit.core.units import plural
from loadkit.locust_users.process import TOKEN_VARIABLE, Address, run_worker


def missing(needed: Mapping[str, object]) -> InputError:
    """Names all that is missing at once, so that nobody is told one by one."""
    return InputError(
        "missing",
        where=", ".join(name for name, value in needed.items() if value is None),
        remedy="loadkit run PROFILE --url URL -o DIR; `loadkit profiles` lists profiles",
    )


def token(master: Address, workers: int) -> str:
    """The token of $LOADKIT_TOKEN, else a new one, shown with the command that starts a worker."""
    known = os.environ.get(TOKEN_VARIABLE)
    made = known or secrets.token_urlsafe(16)
    shown = "" if known else f"{TOKEN_VARIABLE}={made} "
    command = f"{shown}loadkit run --worker --master-host {master[0]} --master-port {master[1]}"
    print(
        f"loadkit: waiting for {plural(workers, 'worker')}; start each with: {command}",
        file=sys.stderr,
    )
    return made


def work_for(master: Address, key: Secret | None) -> int:
    """Be a worker until the master has all records, or is gone; the exit code."""
    known = os.environ.get(TOKEN_VARIABLE)
    if not known:
        raise InputError(
            "not set", where=f"${TOKEN_VARIABLE}", remedy="set it to what the master shows"
        )
    return run_worker(master, key, known)


def check_exports(names: Sequence[str]) -> None:
    """InputError for a format that is none, before anything is sent."""
    from loadkit.runs.exports import FORMATS

    for name in names:
        if name not in FORMATS:
            raise InputError(
                f"no format {name!r}", where="--export", remedy=f"one of {', '.join(FORMATS)}"
            )


def send_out(folder: Path, names: Sequence[str], collector: str | None) -> None:
    """The run folder's figures in other formats, and to a collector. The folder stays in any case."""
    from loadkit.runs.exports import export
    from loadkit.runs.exports.measured import read_measured
    from loadkit.runs.exports.otlp import post

    for name in names:
        export(folder, name)
    if collector is not None:
        post(read_measured(folder), collector)
