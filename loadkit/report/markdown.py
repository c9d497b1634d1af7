"""The report as Markdown, for a pull request or a chat: headline, verdict, three tables."""

from __future__ import annotations

import re

from loadkit.report import findings, tables
from loadkit.report.fit import Fit
from loadkit.report.model import Report
from loadkit.report.tables import Table
from loadkit.report.words import clean, sentence

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#!|~@&:])")


def escape(words: str) -> str:
    """Foreign text with every character escaped that Markdown, HTML or a mention would act on."""
    return _SPECIAL.sub(r"\\\1", clean(words)).replace("\\<", "&lt;").replace("\\>", "&gt;")


def render_markdown(report: Report) -> str:
    """The summary; ends with a newline."""
    parts = [f"## {escape(report.headline)}.", escape(report.title), *_verdict(report)]
    parts += [_table(tables.split_table(report.sides))]
    parts += [_table(tables.wait_table(waits), "time to first token, ") for waits in report.waits]
    parts += [_fit(one) for one in report.fits]
    parts += [_table(findings.objectives_table(one)) for one in report.objectives]
    parts += [escape(line) for line in tables.witness_lines(report.facts)]
    parts += [_table(tables.agreement_table(report.facts), "three counts, ")]
    return "\n\n".join(parts) + "\n"


def _fit(found: Fit) -> str:
    said = filter(None, (tables.fit_answer(found), tables.fit_basis(found)))
    return " ".join([escape(found.label) + ":", *(escape(sentence(words)) for words in said)])


def _verdict(report: Report) -> list[str]:
    if report.gate is None:
        return []
    lines = [f"**{escape(str(report.gate['verdict']))}**"]
    for reason in report.gate["reasons"]:
        remedy = sentence(reason.get("remedy") or "")
        lines.append(
            f"- **{escape(reason['code'])}**: {escape(sentence(reason['message']))} {escape(remedy)}"
        )
    return ["\n".join(lines[:1]), "\n".join(lines[1:])] if lines[1:] else lines


def _table(table: Table, before: str = "") -> str:
    head = [escape(before + table.corner), *(escape(name) for name in table.columns)]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * len(table.columns) + "|"]
    for row in table.rows:
        lines.append("| " + " | ".join(map(escape, (row.name, *row.cells))) + " |")
    return "\n".join(lines)
