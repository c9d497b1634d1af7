"""`loadkit gate`: the verdict on a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loadkit.cli import options


def gate(
    measured: Annotated[Path, typer.Option(metavar="DIR", help="run folder of the staging test")],
    expected: Annotated[
        Path, typer.Option(metavar="FILE", help="forecast JSON (`loadkit forecast --json`)")
    ],
    baseline: options.Baseline = None,
    policy: options.PolicyFile = None,
    junit: options.Junit = None,
    markdown: options.Markdown = None,
    as_json: options.AsJson = False,
    output: options.JsonFile = None,
) -> None:
    """Does staging look like production? Exit 0: PASS, 1: FAIL, 3: INCONCLUSIVE.

    In GitHub Actions the summary and annotations are written too.
    """
    from loadkit.cli import gate_view
    from loadkit.cli.ci import write_verdict
    from loadkit.cli.log_input import as_json as to_text
    from loadkit.cli.log_input import write_json
    from loadkit.gate import decide_folder, read_json

    verdict = decide_folder(
        measured, read_json(expected), baseline=baseline, policy_file=policy, where=expected
    )
    if output is not None:
        write_json(output, verdict.to_dict())
    write_verdict(verdict, name=measured.name, junit=junit, markdown=markdown)
    if as_json:
        print(to_text(verdict.to_dict()))
    else:
        gate_view.show(verdict)
    raise typer.Exit(verdict.exit_code)
