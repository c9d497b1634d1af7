"""`loadkit calibrate`: how exact this machine's client timing is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from loadkit.cli import options
from loadkit.core.units import plural

if TYPE_CHECKING:
    from rich.table import Table

    from loadkit.calibrate.levels import Level

MAX_STREAMS, MAX_LEVELS = 20_000, 20


def calibrate(
    streams: Annotated[
        str, typer.Option(metavar="N,N,...", help="Streams at a time, one level each.")
    ] = "1,50,200,1000",
    seconds: Annotated[
        float, typer.Option(metavar="S", min=0.1, max=600, help="How long each level lasts.")
    ] = 4.0,
    no_kernel_stamps: Annotated[
        bool,
        typer.Option("--no-kernel-stamps", help="Time arrivals when they are read, as elsewhere."),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Time streams of a server that logs the truth: up to how many can this machine be trusted?

    The client is the one of `loadkit run`, in a process patched as a load worker is, without
    Locust's statistics and the journal. Exit code 3 when not even the first level is to be trusted.
    """
    import sys

    from loadkit.calibrate.levels import to_json, trusted_streams
    from loadkit.calibrate.run import calibrate as run_levels
    from loadkit.core.errors import CannotMeasure

    wanted = parse_streams(streams)
    levels = []
    for level in run_levels(wanted, seconds, kernel_stamps=not no_kernel_stamps):
        levels.append(level)
        print(f"loadkit: {plural(level.streams, 'stream')} done", file=sys.stderr)
    best = trusted_streams(levels)
    if as_json:
        import json

        print(json.dumps(to_json(levels, kernel_stamps=not no_kernel_stamps), indent=2))
    else:
        show(levels, best)
    if best == 0:
        raise CannotMeasure(
            "this machine's timing is not to be trusted at any of these levels",
            code="invalid_timing",
            remedy="is it busy with something else?",
        )


def parse_streams(text: str) -> list[int]:
    """`1,50` -> [1, 50]. InputError for anything but a few whole numbers from 1."""
    from loadkit.core.errors import InputError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts) or len(parts) > MAX_LEVELS:
        raise InputError(f"not numbers of streams: {text}", where="--streams", remedy="like 1,50")
    numbers = [int(part) for part in parts if len(part) < 9]
    if len(numbers) < len(parts) or not all(1 <= number <= MAX_STREAMS for number in numbers):
        raise InputError(f"each from 1 to {MAX_STREAMS}: {text}", where="--streams")
    return numbers


def show(levels: list[Level], best: int) -> None:
    from rich.console import Console

    from loadkit.calibrate.levels import TRUST_P50_S, TRUST_P99_S

    console = Console(markup=False, highlight=False)
    console.print(_table(levels))
    console.print(
        "TTFT error: first token as timed here minus when the server sent it. Read lag: how long "
        "a request's bytes waited at most until they were read. Events: tokens received and decoded."
    )
    limits = f"{1000 * TRUST_P50_S:g} ms in the middle and {1000 * TRUST_P99_S:g} ms at p99"
    if best:
        console.print(
            f"Trusted up to {plural(best, 'stream')} a process (TTFT error within {limits})."
        )


def _table(levels: list[Level]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("streams", "requests", "TTFT error p50/p99", "read lag p50/p99", "CPU"):
        table.add_column(name, justify="right")
    table.add_column("events/CPU-s", justify="right")
    for level in levels:
        table.add_row(
            f"{level.streams:,}",
            f"{level.requests:,}" + (f" ({level.failed} failed)" if level.failed else ""),
            _pair(level.ttft_error_p50_s, level.ttft_error_p99_s),
            _pair(level.read_lag_p50_s, level.read_lag_p99_s),
            "-" if level.cpu_share is None else f"{100 * level.cpu_share:.0f}%",
            "-" if level.events_per_cpu_s is None else f"{level.events_per_cpu_s:,.0f}",
        )
    return table


def _pair(p50: float | None, p99: float | None) -> str:
    if p50 is None or p99 is None:
        return "-"
    return f"{1000 * p50:.2f} / {1000 * p99:.2f} ms"
