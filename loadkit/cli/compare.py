"""`loadkit compare DIR DIR...`: runs side by side, each against the first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from loadkit.cli.options import AsJson, argument


def compare(
    folders: Annotated[list[Path], argument("run folders; the first is compared with", "DIR")],
    as_json: AsJson = False,
) -> None:
    """Runs side by side: what changed, how sure that is, and which settings differ."""
    from loadkit.cli.log_input import as_json as to_text
    from loadkit.cli.rate_tables import console
    from loadkit.cli.report_view import to_screen
    from loadkit.report.compare import change_table, compare_runs, setting_table
    from loadkit.report.tables import split_table
    from loadkit.report.words import for_log

    found = compare_runs(folders)
    if as_json:
        print(to_text(found.to_dict()))
        return
    out = console()
    out.print(to_screen(split_table(found.sides)))
    for one in found.differences:
        out.print()
        out.print(to_screen(change_table(one)))
        out.print("* more than chance explains (95%, by sessions)", style="dim")
        if one.settings:
            out.print()
            out.print(to_screen(setting_table(one), "left"))
    for warning in found.warnings:
        out.print(f"warning: {for_log(warning)}")
