"""Counts of finished requests that add up exactly, however the requests were shared out.

A `Tally` of all requests of a run equals the merge of the tallies of its parts: counters are
integers, histograms are hdrhistogram counts (3 digits, microseconds), and the time series has
buckets whose width is the smallest power of two seconds that keeps it under `MAX_BUCKETS`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from hdrh.histogram import HdrHistogram

from loadkit.core.split import CAUSES, Split
from loadkit.runs.histograms import histogram, record_seconds
from loadkit.runs.latency import CAUSES as PARTS
from loadkit.runs.record import Record

MAX_BUCKETS = 600

COLUMNS = (*CAUSES, "not_reported", "replayed_prompt", "requests")
"""One bucket of the series. All but `requests` are prompt tokens.

not_reported: prompt tokens of answers that said nothing about cached tokens; in no cause.
replayed_prompt: prompt tokens, hit or missed, of requests that were replays; what the organic hit
rate leaves out.
"""


class TallyDelta(msgspec.Struct, forbid_unknown_fields=True):
    """A tally on the wire from worker to master; plain lists and strings that msgpack carries."""

    width_s: int
    buckets: list[list[int]]
    ttft: dict[str, str]
    schedule_delay: str
    outcomes: dict[str, int]
    sources: dict[str, int]
    not_reported_requests: int


class Series:
    """Rows of `COLUMNS` by time. Times are seconds after the run's start; negative counts as 0.

    Memory is bounded: when a time would need bucket `MAX_BUCKETS` or later, neighbours are added
    together and `width_s` doubles. Empty buckets are not stored.
    """

    def __init__(self) -> None:
        self.width_s = 1
        self.buckets: dict[int, list[int]] = {}

    def add(self, at_s: float, row: Iterable[int]) -> None:
        """Add one row of counts at a time."""
        at = max(0, int(at_s))
        while at // self.width_s >= MAX_BUCKETS:
            self._widen()
        _add_into(self.buckets, at // self.width_s, row)

    def merge(self, width_s: int, buckets: Iterable[list[int]]) -> None:
        """Add another series, given as rows of [index, *counts]. Widths are powers of two."""
        while self.width_s < width_s:
            self._widen()
        for index, *row in buckets:
            self.add(index * width_s, row)

    def rows(self) -> list[list[int]]:
        """[index, *counts] of every stored bucket, in time order."""
        return [[index, *row] for index, row in sorted(self.buckets.items())]

    def total(self) -> dict[str, int]:
        """Sum over time, by column."""
        sums = [sum(column) for column in zip(*self.buckets.values(), strict=True)]
        return dict(zip(COLUMNS, sums or [0] * len(COLUMNS), strict=True))

    def _widen(self) -> None:
        narrow, self.buckets = self.buckets, {}
        self.width_s *= 2
        for index, row in narrow.items():
            _add_into(self.buckets, index // 2, row)


class Tally:
    """Everything the live view shows, as sums. See the module for why merging is exact."""

    def __init__(self) -> None:
        self.series = Series()
        self.ttft: dict[str, HdrHistogram] = {}
        self.schedule_delay = histogram()
        self.outcomes: dict[str, int] = {}
        self.sources: dict[str, int] = {}
        self.not_reported_requests = 0

    def add(self, record: Record, split: Split | None, source: str, replayed: bool) -> None:
        """Count one finished request.

        split: its prompt tokens by cause, None when the server did not report cached tokens (its
        prompt tokens, if known, then count as not_reported). source: "server" or "estimated",
        where the split comes from. replayed: the request was a replay, even if nothing hit.
        """
        self.series.add(_time_of(record), _row(record, split, replayed))
        _count(self.outcomes, record.outcome)
        if split is not None:
            _count(self.sources, source)
        elif record.outcome == "ok":
            self.not_reported_requests += 1
        if record.ttft_s is not None:
            record_seconds(self._ttft_of(dominant_part(split)), record.ttft_s)
        if record.schedule_delay_s is not None:
            record_seconds(self.schedule_delay, record.schedule_delay_s)

    def merge(self, delta: TallyDelta) -> None:
        """Add the counts of another tally."""
        self.series.merge(delta.width_s, delta.buckets)
        for part, encoded in delta.ttft.items():
            self._ttft_of(part).decode_and_add(encoded.encode())
        self.schedule_delay.decode_and_add(delta.schedule_delay.encode())
        for name, count in delta.outcomes.items():
            _count(self.outcomes, name, count)
        for name, count in delta.sources.items():
            _count(self.sources, name, count)
        self.not_reported_requests += delta.not_reported_requests

    def delta(self) -> TallyDelta:
        """These counts, ready for the wire."""
        return TallyDelta(
            width_s=self.series.width_s,
            buckets=self.series.rows(),
            ttft={part: h.encode().decode() for part, h in self.ttft.items()},
            schedule_delay=self.schedule_delay.encode().decode(),
            outcomes=dict(self.outcomes),
            sources=dict(self.sources),
            not_reported_requests=self.not_reported_requests,
        )

    def _ttft_of(self, part: str) -> HdrHistogram:
        if part not in self.ttft:  # setdefault would make a histogram a call, thousands of counts
            self.ttft[part] = histogram()
        return self.ttft[part]


def percentile_s(source: HdrHistogram, percent: float) -> float | None:
    """A percentile in seconds; None without values."""
    if not source.get_total_count():
        return None
    return float(source.get_value_at_percentile(percent)) / 1e6


def dominant_part(split: Split | None) -> str:
    """The part of `PARTS` with most of the prompt's tokens; the earlier one when equal.

    "not_reported" without a split.
    """
    if split is None:
        return "not_reported"
    return max(PARTS, key=lambda part: int(getattr(split, part)))


def _row(record: Record, split: Split | None, replayed: bool) -> list[int]:
    if split is None:
        return [0] * len(CAUSES) + [record.prompt_tokens or 0, 0, 1]
    causes = [int(getattr(split, cause)) for cause in CAUSES]
    return [*causes, 0, split.prompt_tokens if replayed else 0, 1]


def _time_of(record: Record) -> float:
    """When a request was over, as far as known: seconds after the run's start."""
    for at_s in (record.completed_s, record.last_token_s, record.sent_s):
        if at_s is not None:
            return at_s
    return record.intended_s


def _count(counts: dict[str, int], name: str, number: int = 1) -> None:
    counts[name] = counts.get(name, 0) + number


def _add_into(buckets: dict[int, list[int]], index: int, row: Iterable[int]) -> None:
    old = buckets.get(index)
    new = list(row)
    buckets[index] = new if old is None else [a + b for a, b in zip(old, new, strict=True)]


def as_plain(delta: TallyDelta) -> dict[str, Any]:
    """A delta as the dict that Locust's messages carry."""
    plain: dict[str, Any] = msgspec.to_builtins(delta)
    return plain
