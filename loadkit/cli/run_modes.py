"""What `loadkit run` does besides a plain run: plan, work for a master, recover."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from loadkit.client.secret import Secret, read_api_key
from loadkit.core.errors import InputError
from loadkit.core.units import plural
from loadkit.locust_users.process import TOKEN_VARIABLE, Address, run_worker
from loadkit.locust_users.recover import recover
from loadkit.profiles import Profile
from loadkit.traffic.plan import TrafficPlan

T = TypeVar("T")


def given(value: T | None, name: str) -> T:
    """The argument; InputError when it was left out though this run needs it."""
    if value is None:
        raise InputError("missing", where=name, remedy="see `loadkit run --help`")
    return value


def check_all_given(needed: Mapping[str, object]) -> None:
    """InputError that names all that is missing at once, so that nobody is told one by one."""
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        raise InputError(
            "missing",
            where=", ".join(missing),
            remedy="loadkit run PROFILE --url URL -o DIR; `loadkit profiles` lists profiles",
        )


def planned(
    profile: str,
    overrides: list[str],
    *,
    tokenizer: str | None = None,
    block_size: int | None = None,
    url: str | None = None,
    key: Secret | None = None,
    model: str | None = None,
) -> tuple[Profile, TrafficPlan]:
    """The profile with its overrides, and its plan: refused if a tokenizer shows it not fresh."""
    from loadkit import profiles
    from loadkit.corpora.public import tell_licences
    from loadkit.planning import plan_for_run

    chosen = profiles.load(profile, overrides)
    tell_licences(chosen.traffic.model_dump())
    plan = plan_for_run(
        chosen, tokenizer=tokenizer, block_size=block_size, url=url, key=key, model=model
    )
    return chosen, plan


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


def work_for(master: Address, api_key_file: Path | None) -> int:
    """Be a worker until the master has all records, or is gone; the exit code."""
    known = os.environ.get(TOKEN_VARIABLE)
    if not known:
        raise InputError(
            "not set", where=f"${TOKEN_VARIABLE}", remedy="set it to what the master shows"
        )
    return run_worker(master, read_api_key(api_key_file), known)


def recovered(folder: Path, out: Path) -> dict[str, Any]:
    return recover(folder, out)


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
