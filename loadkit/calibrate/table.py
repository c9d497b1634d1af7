"""The levels as a person reads them: a row each, and what the columns say."""

from __future__ import annotations

from loadkit.calibrate.levels import TRUST_P50_S, TRUST_P99_S, Level
from loadkit.core.units import plural

HEADS = (
    "streams",
    "requests",
    "TTFT error p50/p99",
    "read lag p50/p99",
    "CPU",
    "events/CPU-s",
)
LEGEND = (
    "TTFT error: first token as timed here minus when the server sent it. Read lag: how long "
    "a request's bytes waited at most until they were read. Events: tokens received and decoded."
)


def row(level: Level) -> tuple[str, ...]:
    """A cell for each of HEADS; - for what is not known."""
    return (
        f"{level.streams:,}",
        f"{level.requests:,}" + (f" ({level.failed} failed)" if level.failed else ""),
        _pair(level.ttft_error_p50_s, level.ttft_error_p99_s),
        _pair(level.read_lag_p50_s, level.read_lag_p99_s),
        "-" if level.cpu_share is None else f"{100 * level.cpu_share:.0f}%",
        "-" if level.events_per_cpu_s is None else f"{level.events_per_cpu_s:,.0f}",
    )


def verdict(best: int) -> str:
    limits = f"{1000 * TRUST_P50_S:g} ms in the middle and {1000 * TRUST_P99_S:g} ms at p99"
    return f"Trusted up to {plural(best, 'stream')} a process (TTFT error within {limits})."


def _pair(p50: float | None, p99: float | None) -> str:
    if p50 is None or p99 is None:
        return "-"
    return f"{1000 * p50:.2f} / {1000 * p99:.2f} ms"
