"""`loadkit calibrate`: how exact this machine's client timing is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from loadkit.cli.options import AsJson, flag, option
from loadkit.core.units import plural

if TYPE_CHECKING:
    from loadkit.calibrate.levels import Level


def calibrate(
    streams: Annotated[
        str, option("Streams at a time, one level each.", "N,N,...")
    ] = "1,50,200,1000",
    seconds: Annotated[float, option("How long each level lasts.", "S", min=0.1, max=600)] = 4.0,
    no_kernel_stamps: Annotated[
        bool, flag("--no-kernel-stamps", "Time arrivals when they are read, as elsewhere.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Time streams of a server that logs the truth: up to how many can this machine be trusted?

    The client is the one of `loadkit run`, in a process patched as a load worker is, without
    Locust's statistics and the journal. Exit code 3 when not even the first level is to be trusted.
    """
    from loadkit.calibrate.levels import parse_streams, to_json, trusted_streams
    from loadkit.calibrate.run import calibrate as run_levels
    from loadkit.cli.log_input import as_json as to_text
    from loadkit.core.errors import CannotMeasure

    wanted, levels = parse_streams(streams), []
    for level in run_levels(wanted, seconds, kernel_stamps=not no_kernel_stamps):
        levels.append(level)
        print(f"loadkit: {plural(level.streams, 'stream')} done", file=sys.stderr)
    best = trusted_streams(levels)
    if as_json:
        print(to_text(to_json(levels, kernel_stamps=not no_kernel_stamps)))
    else:
        _show(levels, best)
    if best == 0:
        raise CannotMeasure(
            "this machine's timing is not to be trusted at any of these levels",
            code="invalid_timing",
            remedy="is it busy with something else?",
        )


def _show(levels: list[Level], best: int) -> None:
    from loadkit.calibrate.table import HEADS, LEGEND, row, verdict
    from loadkit.cli.rate_tables import console, table

    out = console()
    shown = table(HEADS, justify="right")
    for level in levels:
        shown.add_row(*row(level))
    out.print(shown)
    out.print(LEGEND)
    if best:
        out.print(verdict(best))
