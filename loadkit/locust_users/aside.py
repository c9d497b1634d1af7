"""Steps of a user's own Locust run that need a process of their own, outside Locust's.

`prepare` reads a profile and plans, `finish` tokenises and predicts: neither belongs into a process
that Locust has patched, and tokenizers do not survive its forks. Run as a program:

    python -m loadkit.locust_users.aside prepare < spec.json    prints the working folder
    python -m loadkit.locust_users.aside finish WORK OUT        writes the run folder, prints run.json
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import msgspec

from loadkit import profiles
from loadkit.client.control import ControlPlane
from loadkit.client.endpoint import Endpoint
from loadkit.client.secret import read_api_key
from loadkit.core.errors import InputError, LoadkitError
from loadkit.corpora.public import tell_licences
from loadkit.locust_users.preparing import Choices, kinds_of, observe_before, prepare
from loadkit.locust_users.recover import tell_of_abandoned
from loadkit.locust_users.settings import WorkFolder
from loadkit.locust_users.work import closed_context, make_work_folder
from loadkit.planning import plan_for_run
from loadkit.runs.folder import check_free, finish_run


class Spec(msgspec.Struct, frozen=True):
    """What a user class says about its run. kinds: of traffic that it plays; None: any.
    beside: the other user classes of the test, whose traffic the server's counters hold too."""

    user_class: str
    profile: str
    url: str
    out: str
    overrides: tuple[str, ...] = ()
    kinds: tuple[str, ...] | None = None
    model: str | None = None
    tokenizer: str | None = None
    block_size: int | None = None
    processes: int = 1
    web: bool = False
    beside: tuple[str, ...] = ()


def prepare_work(spec: Spec) -> WorkFolder:
    """The working folder of a run that is ready to start. InputError, CannotMeasure: see prepare."""
    out = Path(spec.out)
    check_free(out)
    tell_of_abandoned(out.parent)
    profile = profiles.load(spec.profile, list(spec.overrides))
    other = kinds_of(profile) - set(spec.kinds or kinds_of(profile))
    if other:
        raise InputError(
            f"{spec.user_class} does not play traffic of kind {', '.join(sorted(other))}",
            where=profile.name,
            remedy="derive it from the user class of that kind, or from LoadkitUser for any",
        )
    key = read_api_key()
    tell_licences(profile.traffic.model_dump())
    plan = plan_for_run(
        profile,
        tokenizer=spec.tokenizer,
        block_size=spec.block_size,
        url=spec.url,
        key=key,
        model=spec.model,
    )
    choices = Choices(spec.model, spec.tokenizer, spec.block_size, max(1, spec.processes), spec.web)
    with ControlPlane(Endpoint.parse(spec.url), key=key) as control:
        settings, context = prepare(profile, plan, control, choices, key)
        observe_before(context, control)
    if spec.beside:
        others = ", ".join(spec.beside)
        context.notes.append(f"other traffic: {others} ran in the same test, on the same counters")
    work = make_work_folder(out, plan, settings)
    work.write_context(context)
    return work


def finish(path: Path, out: Path) -> bytes:
    """Write the run folder; returns run.json. The working folder goes away."""
    work = WorkFolder(path)
    with ControlPlane(Endpoint.parse(work.settings().url), key=read_api_key()) as control:
        context = closed_context(work, work.context(), after=control.prefix_counters())
    run = finish_run(path, out, context)
    shutil.rmtree(path, ignore_errors=True)
    return msgspec.json.encode(run)


def main(arguments: list[str]) -> int:
    try:
        if arguments == ["prepare"]:
            spec = msgspec.json.decode(sys.stdin.buffer.read(), type=Spec)
            print(prepare_work(spec).path)
        else:
            _, work, out = arguments
            sys.stdout.buffer.write(finish(Path(work), Path(out)))
    except LoadkitError as error:
        print(f"loadkit: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
