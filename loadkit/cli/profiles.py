"""`loadkit profiles`: list, show or validate the workloads that can be run."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import Annotated

import typer

_UNBROKEN = 10_000  # a pipe gets a line a profile


def profiles(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="bundled name or path: validate and show it"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON on stdout")] = False,
) -> None:
    """List the bundled profiles, or validate and show one."""
    from loadkit import profiles as library

    if name is not None:
        profile = library.load(name)
        data = profile.model_dump(mode="json", by_alias=True, exclude_none=True)
        _print_json(data) if as_json else print(_yaml(data))
        return
    listed = [library.load(each) for each in library.names()]
    if as_json:
        _print_json(
            [{"name": p.name, "kind": p.traffic.kind, "summary": p.summary} for p in listed]
        )
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _UNBROKEN
    for profile in listed:
        head = f"{profile.name:<20} {profile.traffic.kind:<13} "
        print(textwrap.fill(profile.summary, width, initial_indent=head, subsequent_indent="    "))


def _print_json(data: object) -> None:
    import json

    print(json.dumps(data, indent=2, ensure_ascii=False))


def _yaml(data: object) -> str:
    import yaml

    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip()
