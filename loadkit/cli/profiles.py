"""`loadkit profiles`: list, show or validate the workloads that can be run, or write a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loadkit.cli import options


def profiles(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[show] [NAME] | new NAME | schema",
            help="Bundled name or path: validate it, show it and what it plans. "
            "new: ask five questions and write one. schema: the JSON schema of profiles.",
        ),
    ] = None,
    settings: options.Settings = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The served tokenizer: for lengths in tokens, and freshness."
        ),
    ] = None,
    block_size: Annotated[
        int, typer.Option(metavar="N", min=1, help="Tokens a block, for freshness.")
    ] = 16,
    service: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="new: chat, agent, documents or single."),
    ] = None,
    sessions: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="new: sessions in a run.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="R", help="new: sessions that begin a second.")
    ] = None,
    requests: Annotated[
        float | None, typer.Option(metavar="N", min=1, help="new: requests of a session, mean.")
    ] = None,
    shared_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="new: tokens of the system prompt or document."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FOLDER", help="new: where to.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """List the bundled profiles, validate and show one with what it plans, or write a new one."""
    from loadkit import profiles as library
    from loadkit.cli import profiles_view as view
    from loadkit.core.errors import InputError

    answers = (service, sessions, rate, requests, shared_tokens)
    if (words or [""])[0] != "new" and any(each is not None for each in (*answers, output)):
        raise InputError(
            "an option of `profiles new` only", where="loadkit profiles", remedy="`new NAME`"
        )
    match words or []:
        case []:
            view.show_list([library.load(each) for each in library.names()], as_json)
        case ["schema"]:
            view.print_json(library.schema())
        case ["new", name]:
            from loadkit.cli.interrupt import interruptible
            from loadkit.cli.profiles_new import asked
            from loadkit.profiles.drafting import Answers, check_free, written

            check_free(name, output)
            with interruptible("nothing was written"):
                given = asked(Answers(*answers))
            path, made = written(name, given, output)
            print(f"{path}: {made.traffic.kind}.")
            print(f"See what it sends: loadkit profiles {path.parent}")
            print(f"Send it: loadkit run {path.parent} --url URL --tokenizer NAME -o DIR")
        case ["new"]:
            raise InputError(
                "the new profile needs a name",
                where="loadkit profiles new",
                remedy="`loadkit profiles new my-service`",
            )
        case ["show", name] | [name] if name != "new":
            view.show_one(library.load(name, settings or ()), tokenizer, block_size, as_json)
        case _:
            raise InputError(
                f"not understood: {' '.join(words or [])}",
                where="loadkit profiles",
                remedy="give nothing, NAME, `new NAME`, `show NAME` or `schema`",
            )
