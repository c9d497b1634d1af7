"""Run folders, a forecast and a verdict -> one offline HTML file, or Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loadkit.gate.policy import Policy
from loadkit.report.build import build
from loadkit.report.files import write_whole
from loadkit.report.html import render
from loadkit.report.markdown import render_markdown
from loadkit.report.model import Report

__all__ = ["Report", "build", "render", "render_markdown", "write_report", "write_whole"]


def write_report(
    out_html: Path,
    *,
    staging: Path,
    expected: dict[str, Any] | None = None,
    production: Path | None = None,
    gate: dict[str, Any] | None = None,
    curves: dict[str, Any] | None = None,
    policy: Policy | None = None,
    show_text: bool = False,
) -> Report:
    """Write the HTML report of a run folder; returns its model. See `build` for the arguments;
    a page with `show_text` is for its owner alone to read."""
    report = build(
        staging,
        expected=expected,
        production=production,
        gate=gate,
        curves=curves,
        policy=policy,
        show_text=show_text,
    )
    write_whole(out_html, render(report), private=show_text)
    return report
