"""`loadkit gate`: the verdict on a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loadkit.cli.log_input import Answer
from loadkit.cli.options import Judging, grouped, option


@grouped
def gate(
    measured: Annotated[Path, option("run folder of the staging test", "DIR")],
    expected: Annotated[Path, option("forecast JSON (`loadkit forecast --json`)", "FILE")],
    judging: Judging,
    answer: Answer,
) -> None:
    """Does staging look like production? Exit 0: PASS, 1: FAIL, 3: INCONCLUSIVE.

    At confidence 0.95 an honest run should fail in 5% of cases; measured: docs/accuracy.md. In GitHub
    Actions the summary and annotations are written too.
    """
    from loadkit.cli import gate_view
    from loadkit.cli.ci import write_verdict
    from loadkit.gate import decide_folder, read_json

    verdict = decide_folder(
        measured,
        read_json(expected),
        baseline=judging.baseline,
        policy_file=judging.policy,
        where=expected,
    )
    write_verdict(verdict, name=measured.name, junit=judging.junit, markdown=judging.markdown)
    answer.give(verdict.to_dict(), lambda: gate_view.show(verdict))
    raise typer.Exit(verdict.exit_code)
