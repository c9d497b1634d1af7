"""`loadkit profiles`: list, show or validate the workloads that can be run, or write a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from loadkit.cli import options
from loadkit.cli.options import argument, option


def profiles(
    words: Annotated[
        list[str] | None,
        argument(
            "Bundled name or path: validate it, show it and what it plans. "
            "new: ask five questions and write one. schema: the JSON schema of profiles.",
            "[show] [NAME] | new NAME | schema",
        ),
    ] = None,
    settings: options.Settings = None,
    tokenizer: Annotated[
        str | None, option("The served tokenizer: for lengths in tokens, and freshness.", "NAME")
    ] = None,
    block_size: Annotated[int, option("Tokens a block, for freshness.", "N", min=1)] = 16,
    service: Annotated[str | None, option("new: chat, agent, documents or single.", "KIND")] = None,
    sessions: Annotated[int | None, option("new: sessions in a run.", "N", min=1)] = None,
    rate: Annotated[float | None, option("new: sessions that begin a second.", "R")] = None,
    requests: Annotated[
        float | None, option("new: requests of a session, mean.", "N", min=1)
    ] = None,
    shared_tokens: Annotated[
        int | None, option("new: tokens of the system prompt or document.", "N", min=0)
    ] = None,
    output: Annotated[Path | None, option("new: where to.", "FOLDER", "-o", "--output")] = None,
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
