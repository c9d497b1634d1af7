"""`loadkit synthesize LOG... --traffic 10x -o OUT.jsonl`: the log's sharing, none of its text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from loadkit.cli import options
from loadkit.cli.log_input import Source
from loadkit.cli.options import flag, grouped, option

if TYPE_CHECKING:
    from loadkit.synthesize import Synthesis


@grouped
def synthesize(
    source: Source,
    output: Annotated[Path, option("JSONL to write, .gz if named so.", "FILE", "-o", "--output")],
    traffic: Annotated[
        str, option("The workload's traffic as a multiple of the log's.", "10x")
    ] = "1x",
    token_ids: Annotated[
        bool, flag("--token-ids", "Write prompts as random token ids instead of chats.")
    ] = False,
    vocab_size: Annotated[int, option("With --token-ids: ids stay below it.", "N")] = 32_000,
    corpus: Annotated[str, option("Whose words the chats are made of.", "NAME")] = "assistant-chat",
    seed: Annotated[int, option("Same seed, same bytes.", "N", min=0)] = 0,
    json: options.AsJson = False,
) -> None:
    """Write a workload that shares blocks as the log does, at another traffic, without its text."""
    from loadkit import corpora
    from loadkit.cli import log_input
    from loadkit.core.errors import InputError
    from loadkit.core.tokenizer import load_tokenizer
    from loadkit.core.units import parse_traffic
    from loadkit.synthesize import synthesize_chats, synthesize_token_ids

    if source.tokenizer is None and not token_ids:
        raise InputError(
            "chats of an exact length need the served model's tokenizer",
            where="--tokenizer",
            remedy="name it, or write token ids with --token-ids",
        )
    log_input.check_folder(output)
    times = parse_traffic(traffic)
    log = source.read()
    if token_ids or source.tokenizer is None:
        made = synthesize_token_ids(log.trace, times, output, vocab_size, seed)
    else:
        served = load_tokenizer(source.tokenizer)
        made = synthesize_chats(log.trace, times, output, served, corpora.load(corpus), seed)
    if json:
        print(log_input.as_json(made.to_dict()))
    else:
        _show(made, output)


def _show(made: Synthesis, output: Path) -> None:

    from loadkit.cli.rate_tables import console, count, note
    from loadkit.core.units import plural

    out = console()
    out.print(
        f"{output}: {plural(made.requests, 'request')}, {plural(made.sessions, 'session')},"
        f" {count(made.prompt_tokens)} prompt tokens in blocks of {made.block_size},"
        f" {'token ids' if made.form == 'token_ids' else 'chats'}"
    )
    for warning in made.warnings:
        note(out, warning)
