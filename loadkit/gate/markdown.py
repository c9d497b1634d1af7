"""The verdict as Markdown, for a pull request or a CI's summary page."""

from __future__ import annotations

from loadkit.gate.verdict import Comparison, Reason, Verdict
from loadkit.report.markdown import escape
from loadkit.report.words import percent, sentence

_MARKS = {"passed": "✓", "failed": "✗", "inconclusive": "?", "skipped": "–"}


def to_markdown(verdict: Verdict, name: str = "") -> str:
    """Headline, reasons with figures and remedies, every check; ends with a newline."""
    title = f"## loadkit gate: {verdict.verdict}" + (f" ({escape(name)})" if name else "")
    parts = [title, _rates(verdict.hit_rate), *(_reason(reason) for reason in verdict.reasons)]
    parts.append(_checks(verdict))
    parts += [f"Note: {escape(note)}." for note in verdict.notes]
    parts.append(f"Thresholds: {escape(verdict.thresholds_from)}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _rates(rates: Comparison) -> str:
    rows = [
        ("hit rate", rates.measured, rates.interval, _expected(rates)),
        ("of it replays", rates.measured_replay, None, percent(rates.expected_replay)),
        (
            "organic hit rate",
            rates.measured_organic,
            rates.organic_interval,
            percent(rates.expected_organic),
        ),
    ]
    lines = ["| share of prompt tokens | measured | interval | expected |", "|---|---:|---:|---:|"]
    lines += [
        f"| {name} | {percent(value)} | {_span(span)} | {expected} |"
        for name, value, span, expected in rows
    ]
    return "\n".join(lines)


def _expected(rates: Comparison) -> str:
    low, high = rates.expected_low, rates.expected_high
    return percent(low) if low == high else f"{percent(low)} – {percent(high)}"


def _span(span: tuple[float, float] | None) -> str:
    return "–" if span is None else f"{percent(span[0])} – {percent(span[1])}"


def _reason(reason: Reason) -> str:
    words = f"**{escape(reason.code)}** ({reason.verdict}): {escape(sentence(reason.message))}"
    return f"{words}\n\n> {escape(sentence(reason.remedy))}"


def _checks(verdict: Verdict) -> str:
    lines = ["| check | outcome | |", "|---|---|---|"]
    for check in verdict.checks:
        says = check.says if check.outcome == "skipped" else ""
        outcome = f"{_MARKS[check.outcome]} {check.outcome}"
        lines.append(
            f"| {escape(check.code)}: {escape(check.question)}? | {outcome} | {escape(says)} |"
        )
    return "\n".join(lines)
