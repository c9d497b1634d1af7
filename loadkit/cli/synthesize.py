"""`loadkit synthesize LOG... --traffic 10x -o OUT.jsonl`: the log's sharing, none of its text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadkit.cli import options

if TYPE_CHECKING:
    from loadkit.synthesize import Synthesis


def synthesize(
    logs: options.LogFiles,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="JSONL to write, .gz if named so.", metavar="FILE"),
    ],
    traffic: Annotated[
        str, typer.Option(help="The workload's traffic as a multiple of the log's.", metavar="10x")
    ] = "1x",
    token_ids: Annotated[
        bool,
        typer.Option("--token-ids", help="Write prompts as random token ids instead of chats."),
    ] = False,
    vocab_size: Annotated[
        int, typer.Option(help="With --token-ids: ids stay below it.", metavar="N")
    ] = 32_000,
    corpus: Annotated[
        str, typer.Option(help="Whose words the chats are made of.", metavar="NAME")
    ] = "assistant-chat",
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.", metavar="N", min=0)] = 0,
    format: options.LogFormat = "auto",
    tokenizer: options.LogTokenizer = None,
    block_size: options.LogBlockSize = None,
    json: options.AsJson = False,
) -> None:
    """Write a workload that shares blocks as the log does, at another traffic, without its text."""
    from loadkit import corpora
    from loadkit.cli import log_input
    from loadkit.core.errors import InputError
    from loadkit.core.tokenizer import load_tokenizer
    from loadkit.core.units import parse_traffic
    from loadkit.synthesize import synthesize_chats, synthesize_token_ids

    if tokenizer is None and not token_ids:
        raise InputError(
            "chats of an exact length need the served model's tokenizer",
            where="--tokenizer",
            remedy="name it, or write token ids with --token-ids",
        )
    times = parse_traffic(traffic)
    log = log_input.read(logs, format, tokenizer, block_size)
    if token_ids or tokenizer is None:
        made = synthesize_token_ids(log.trace, times, output, vocab_size, seed)
    else:
        served = load_tokenizer(tokenizer)
        made = synthesize_chats(log.trace, times, output, served, corpora.load(corpus), seed)
    if json:
        print(log_input.as_json(made.to_dict()))
    else:
        _show(made, output)


def _show(made: Synthesis, output: Path) -> None:
    from rich.text import Text

    from loadkit.cli.rate_tables import console, count
    from loadkit.core.units import plural

    out = console()
    out.print(
        f"{output}: {plural(made.requests, 'request')}, {plural(made.sessions, 'session')},"
        f" {count(made.prompt_tokens)} prompt tokens in blocks of {made.block_size},"
        f" {'token ids' if made.form == 'token_ids' else 'chats'}"
    )
    for warning in made.warnings:
        out.print(Text("note: ", "yellow").append(warning, "default"))
