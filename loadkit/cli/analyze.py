"""`loadkit analyze LOG...`: what a log's own prompts make reusable, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

LogFiles = Annotated[list[Path], typer.Argument(metavar="LOG", help="Log files, read as one.")]
LogFormat = Annotated[
    str, typer.Option("--format", help="auto, mooncake, openai or hashed.", metavar="NAME")
]
TokenizerName = Annotated[
    str | None,
    typer.Option(
        "--tokenizer", help="The served tokenizer, for text logs.", metavar="PATH-OR-NAME"
    ),
]
BlockSize = Annotated[
    int | None,
    typer.Option(
        "--block-size", help="Tokens a block; the format's own unless given.", metavar="N"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]
OutputFile = Annotated[
    Path | None, typer.Option("-o", "--output", help="Write the JSON here too.", metavar="FILE")
]


def analyze(
    logs: LogFiles,
    format: LogFormat = "auto",
    tokenizer: TokenizerName = None,
    block_size: BlockSize = None,
    capacity: Annotated[
        str | None,
        typer.Option(
            help="LRU capacities: 1000,30k (blocks), 3Mtok (tokens); a curve unless given.",
            metavar="LIST",
        ),
    ] = None,
    json: AsJson = False,
    output: OutputFile = None,
) -> None:
    """Exact reusable share of a log's prompt tokens, split by cause, and the hit-rate curve."""
    from loadkit.analysis import analyze as analyze_trace
    from loadkit.cli import analyze_view, log_input
    from loadkit.core.units import parse_capacities

    log = log_input.read(logs, format, tokenizer, block_size)
    capacities = parse_capacities(capacity, log.trace.block_size) if capacity else []
    analysis = analyze_trace(log.trace, capacities)
    data = analysis.to_dict() | {"format": log.format}
    if output is not None:
        log_input.write_json(output, data)
    if json:
        print(log_input.as_json(data))
    else:
        analyze_view.show(analysis, log.format)
