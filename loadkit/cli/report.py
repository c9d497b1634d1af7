"""`loadkit report`: one HTML file of a run, beside production if there is something to compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from loadkit.cli import options
from loadkit.cli.options import argument, flag, option


def report(
    folder: Annotated[Path, argument("run folder of the staging test", "DIR")],
    expected: options.Expected = None,
    production: Annotated[
        Path | None, option("run folder of production-like traffic to compare with", "DIR")
    ] = None,
    gate: Annotated[
        Path | None, option("verdict JSON (default: judged here, if --expected is given)", "FILE")
    ] = None,
    policy: options.PolicyFile = None,
    output: Annotated[
        Path | None, option("HTML file (default: DIR/report.html)", "FILE", "-o", "--output")
    ] = None,
    markdown: Annotated[
        Path | None, option("also write a summary as Markdown; - prints it", "FILE")
    ] = None,
    with_text: Annotated[
        bool, flag("--with-text", "quote a few words of prompts; they may be private")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Write a run's report as one offline HTML file, and print a summary."""
    import sys

    from loadkit.cli import report_view
    from loadkit.cli.log_input import as_json as to_text
    from loadkit.gate import decide_folder, read_json, read_run
    from loadkit.gate.policy import policy_of
    from loadkit.report import render_markdown, write_report, write_whole

    forecast = read_json(expected) if expected else None
    verdict = read_json(gate) if gate else None
    if verdict is None and forecast is not None:
        verdict = decide_folder(
            folder, forecast, policy_file=policy, where=expected or "--expected"
        ).to_dict()
    html = output or folder / "report.html"
    made = write_report(
        html,
        staging=folder,
        expected=forecast,
        production=production,
        gate=verdict,
        policy=policy_of(read_run(folder), policy) if policy else None,
        show_text=with_text,
    )
    if markdown is not None and str(markdown) != "-":
        write_whole(markdown, render_markdown(made), private=with_text)
    if as_json:
        print(to_text(made.to_dict()))
    elif str(markdown) == "-":
        print(render_markdown(made), end="")
    else:
        report_view.show(made)
    print(f"Report: {html}", file=sys.stderr)
