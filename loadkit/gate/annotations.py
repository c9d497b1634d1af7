"""The verdict as workflow commands, one line a reason, which GitHub shows on the run's page."""

from __future__ import annotations

from loadkit.gate.verdict import FAIL, Verdict
from loadkit.report.words import for_log


def to_annotations(verdict: Verdict) -> list[str]:
    """`::error title=...::message` for what fails, `::warning` for what cannot be told."""
    return [
        f"::{'error' if reason.verdict == FAIL else 'warning'}"
        f" title={_property(f'loadkit gate: {reason.code}')}::"
        f"{_data(f'{reason.message}. Do: {reason.remedy}')}"
        for reason in verdict.reasons
    ]


def _data(text: str) -> str:
    """Percent signs and line ends as a workflow command wants them."""
    return for_log(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
