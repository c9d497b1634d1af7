"""A report on a terminal: its sentence, the verdict's codes, and the same tables as the page."""

from __future__ import annotations

from typing import Literal

from rich.table import Table as Screen
from rich.text import Text

from loadkit.cli.rate_tables import console
from loadkit.cli.rate_tables import table as empty_table
from loadkit.report.model import Report
from loadkit.report.tables import Table, split_table, wait_table
from loadkit.report.words import for_log


def show(report: Report) -> None:
    """On stdout; foreign text can neither move the cursor nor speak to a CI's log reader."""
    out = console()
    out.print(Text(for_log(report.headline) + ".", "bold"))
    if report.gate is not None:
        codes = ", ".join(str(reason.get("code")) for reason in report.gate["reasons"])
        verdict = for_log(str(report.gate["verdict"]))
        out.print(Text(f"{verdict}: {for_log(codes)}" if codes else verdict))
    for table in (split_table(report.sides), *(wait_table(waits) for waits in report.waits)):
        out.print()
        out.print(to_screen(table))


def to_screen(table: Table, justify: Literal["left", "right"] = "right") -> Screen:
    """A table of the report for a terminal; figures to the right, words to the left."""
    screen = empty_table([for_log(table.corner)])
    for name in table.columns:
        screen.add_column(for_log(name), justify=justify)
    for row in table.rows:
        cells = (Text(for_log(cell)) for cell in row.cells)
        screen.add_row(
            Text(for_log(row.name)), *cells, style="bold" if row.style == "total" else None
        )
    return screen
