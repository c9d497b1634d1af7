"""`loadkit profiles`: list, show or validate the workloads that can be run."""

from __future__ import annotations

from typing import Annotated

import typer


def profiles(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[show] [NAME] | schema",
            help="Bundled name or path: validate it, show it and what it plans. "
            "schema: the JSON schema of profiles.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="Override a key of the profile; repeatable."),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The served tokenizer: for lengths in tokens, and freshness."
        ),
    ] = None,
    block_size: Annotated[
        int, typer.Option(metavar="N", min=1, help="Tokens a block, for freshness.")
    ] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON on stdout")] = False,
) -> None:
    """List the bundled profiles, or validate and show one with what it plans."""
    from loadkit import profiles as library
    from loadkit.cli import profiles_view as view
    from loadkit.core.errors import InputError

    match words or []:
        case []:
            view.show_list([library.load(each) for each in library.names()], as_json)
        case ["schema"]:
            view.print_json(library.schema())
        case ["show", name] | [name]:
            view.show_one(library.load(name, settings or ()), tokenizer, block_size, as_json)
        case _:
            raise InputError(
                f"not understood: {' '.join(words or [])}",
                where="loadkit profiles",
                remedy="give nothing, NAME, `show NAME` or `schema`",
            )
