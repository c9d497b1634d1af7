"""`loadkit gate`: the verdict on a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from loadkit.gate import Verdict


def gate(
    measured: Annotated[Path, typer.Option(metavar="DIR", help="run folder of the staging test")],
    expected: Annotated[
        Path, typer.Option(metavar="FILE", help="forecast JSON (`loadkit forecast --json`)")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="print the verdict as JSON")] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="also write the verdict to this file"),
    ] = None,
) -> None:
    """Does staging look like production? Exit 0: PASS, 1: FAIL, 3: INCONCLUSIVE."""
    from loadkit.cli.log_input import as_json as to_text
    from loadkit.cli.log_input import write_json
    from loadkit.gate import decide, read_json, read_run

    verdict = decide(read_run(measured), read_json(expected))
    if output is not None:
        write_json(output, verdict.to_dict())
    if as_json:
        print(to_text(verdict.to_dict()))
    else:
        _show(verdict)
    raise typer.Exit(verdict.exit_code)


_STYLES = {"PASS": "bold green", "FAIL": "bold red", "INCONCLUSIVE": "bold yellow"}


def _show(verdict: Verdict) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from loadkit.report.words import clean

    out = Console(highlight=False)
    out.print(Text(verdict.verdict, _STYLES[verdict.verdict]), end="  ")
    out.print(_summary(verdict), markup=False)
    for reason in verdict.reasons:
        out.print(Text(f"\n{reason.code}", "bold"))
        for words in (reason.message, f"Do: {reason.remedy}"):
            out.print(Padding(Text(clean(words)), (0, 0, 0, 2)))


def _summary(verdict: Verdict) -> str:
    rates = verdict.hit_rate
    if rates.measured is None or rates.expected_low is None or rates.expected_high is None:
        return "the hit rate cannot be compared"
    measured = f"measured hit rate {100 * rates.measured:.1f}%"
    if any(reason.code == "forecast_refused" for reason in verdict.reasons):
        return f"{measured}; the forecast is not for this setting, so the two are not compared"
    low, high = 100 * rates.expected_low, 100 * rates.expected_high
    expected = f"{low:.1f}%" if low == high else f"{low:.1f} to {high:.1f}%"
    return f"{measured}, expected {expected}; {_chance(rates.allowance)}"


def _chance(allowance: float | None) -> str:
    if allowance is None:
        return "how far chance moves so small a run cannot be said"
    return f"±{100 * allowance:.1f} points for chance"
