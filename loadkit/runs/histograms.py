"""Histograms of a run, mergeable with those of other runs: HdrHistogram, 3 digits, microseconds.

Counts add up exactly, so the histogram of several workers or runs is the sum of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from hdrh.histogram import HdrHistogram

from loadkit.runs.record import Record

MAX_US = 3_600_000_000
DIGITS = 3
Figure = Callable[[Record], float | None]
_OF_ANSWERED: dict[str, Figure] = {
    "ttft_s": lambda r: r.ttft_s,
    "tpot_s": lambda r: r.tpot_s,
    "e2e_s": lambda r: r.e2e_s,
}
_OF_SENT: dict[str, Figure] = {
    "schedule_delay_s": lambda r: r.schedule_delay_s,
    "connect_s": lambda r: r.connect_s,
}


def histogram() -> HdrHistogram:
    """An empty histogram of microseconds up to one hour."""
    return HdrHistogram(1, MAX_US, DIGITS)


def record_seconds(target: HdrHistogram, seconds: float) -> None:
    """Record a duration; outside 1 us to 1 h it counts at that end."""
    target.record_value(min(max(1, round(seconds * 1e6)), MAX_US))


def write_histograms(answered: Sequence[Record], records: Sequence[Record], path: Path) -> None:
    """One histogram a figure, encoded as HdrHistogram's own base64 (V2, compressed). As in run.json
    latencies are of what was answered, delays and connecting of all of `records` that was sent."""
    encoded = {name: _encoded(map(figure, answered)) for name, figure in _OF_ANSWERED.items()}
    encoded |= {name: _encoded(map(figure, records)) for name, figure in _OF_SENT.items()}
    encoded["itl_s"] = _encoded(gap for record in answered for gap in record.gaps_s)
    data: dict[str, Any] = {"schema": "loadkit.histograms/1", "unit": "us", "digits": DIGITS}
    path.write_bytes(msgspec.json.encode(data | encoded))


def _encoded(values: Iterable[float | None]) -> str:
    found = histogram()
    for value in values:
        if value is not None:
            record_seconds(found, value)
    text: str = found.encode().decode()
    return text
