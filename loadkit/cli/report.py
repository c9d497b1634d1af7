"""`loadkit report`: one HTML file of a run, beside production if there is something to compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="run folder of the staging test")],
    expected: Annotated[
        Path | None, typer.Option(metavar="FILE", help="forecast JSON (`loadkit forecast --json`)")
    ] = None,
    production: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="run folder of production-like traffic to compare with"),
    ] = None,
    gate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="verdict JSON (default: judged here, if --expected is given)"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="HTML file (default: DIR/report.html)"),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="also write a summary as Markdown; - prints it"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print the report's data as JSON")
    ] = False,
) -> None:
    """Write a run's report as one offline HTML file."""
    import sys

    from loadkit.cli.log_input import as_json as to_text
    from loadkit.gate import decide, read_json, read_run
    from loadkit.report import render_markdown, write_report, write_whole

    forecast = read_json(expected) if expected else None
    verdict = read_json(gate) if gate else None
    if verdict is None and forecast is not None:
        verdict = decide(read_run(folder), forecast).to_dict()
    html = output or folder / "report.html"
    made = write_report(
        html, staging=folder, expected=forecast, production=production, gate=verdict
    )
    if markdown is not None and str(markdown) != "-":
        write_whole(markdown, render_markdown(made))
    elif markdown is not None and not as_json:
        print(render_markdown(made), end="")
    if as_json:
        print(to_text(made.to_dict()))
    print(f"Report: {html}", file=sys.stderr)
