"""A verdict on a terminal: one line that says it, then each reason with what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from loadkit.report.words import for_log

if TYPE_CHECKING:
    from loadkit.gate import Verdict

_STYLES = {"PASS": "bold green", "FAIL": "bold red", "INCONCLUSIVE": "bold yellow"}


def show(verdict: Verdict) -> None:
    """On stdout; foreign text can neither move the cursor nor speak to a CI's log reader."""
    out = Console(highlight=False)
    out.print(Text(verdict.verdict, _STYLES[verdict.verdict]), end="  ")
    out.print(_summary(verdict), markup=False)
    for reason in verdict.reasons:
        out.print(Text(f"\n{for_log(reason.code)}", "bold"))
        for words in (reason.message, f"Do: {reason.remedy}"):
            out.print(Padding(Text(for_log(words)), (0, 0, 0, 2)))
    for note in verdict.notes:
        out.print(Text(f"\nnote: {for_log(note)}", "dim"))


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
