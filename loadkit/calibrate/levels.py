"""What the levels say: figures of each, and up to where this machine's timing is to be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from loadkit.calibrate.drive import Driven
from loadkit.core.errors import InputError

SCHEMA = "loadkit.calibration/1"
# A first token that is this much late in the middle, or at the 99th percentile, is not measured.
TRUST_P50_S, TRUST_P99_S = 1e-3, 10e-3
MAX_STREAMS, MAX_LEVELS = 20_000, 20


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """One concurrency. Seconds; None where nothing came of it.

    ttft_error: first token as the client timed it minus when the server handed it to its socket,
    so the server's own write is in it. read_lag: the longest that any bytes of a request lay in
    the kernel before the client took them (kernel stamps only). events_per_cpu_s: tokens received
    and decoded per second of the client's processor time.
    """

    streams: int
    requests: int
    failed: int
    ttft_error_p50_s: float | None
    ttft_error_p99_s: float | None
    read_lag_p50_s: float | None
    read_lag_p99_s: float | None
    events_per_cpu_s: float | None
    cpu_share: float | None
    stall_p99_s: float | None
    stall_max_s: float | None

    @property
    def is_trusted(self) -> bool:
        p50, p99 = self.ttft_error_p50_s, self.ttft_error_p99_s
        in_time = p50 is not None and p99 is not None and p50 <= TRUST_P50_S and p99 <= TRUST_P99_S
        return in_time and self.failed == 0


def parse_streams(text: str) -> list[int]:
    """`1,50` -> [1, 50]. InputError for anything but a few whole numbers from 1."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts) or len(parts) > MAX_LEVELS:
        raise InputError(f"not numbers of streams: {text}", where="--streams", remedy="like 1,50")
    numbers = [int(part) for part in parts if len(part) < 9]
    if len(numbers) < len(parts) or not all(1 <= number <= MAX_STREAMS for number in numbers):
        raise InputError(f"each from 1 to {MAX_STREAMS}: {text}", where="--streams")
    return numbers


def judge(streams: int, driven: Driven, truth: Mapping[str, float]) -> Level:
    """truth: of each session, the monotonic time at which the server sent its first token."""
    errors = sorted(
        sent.first_token_at - truth[sent.session]
        for sent in driven.requests
        if sent.first_token_at is not None and sent.session in truth
    )
    lags = sorted(sent.lag_s for sent in driven.requests if sent.lag_s is not None)
    stalls, tokens = driven.stalls, sum(sent.num_tokens for sent in driven.requests)
    return Level(
        streams=streams,
        requests=len(driven.requests),
        failed=sum(sent.outcome != "ok" for sent in driven.requests),
        ttft_error_p50_s=percentile(errors, 0.5),
        ttft_error_p99_s=percentile(errors, 0.99),
        read_lag_p50_s=percentile(lags, 0.5),
        read_lag_p99_s=percentile(lags, 0.99),
        events_per_cpu_s=tokens / stalls.cpu_s if stalls.cpu_s else None,
        cpu_share=stalls.cpu_s / stalls.wall_s if stalls.wall_s else None,
        stall_p99_s=stalls.p99_s,
        stall_max_s=stalls.max_s,
    )


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Nearest rank: the smallest value with at least that share of all at or below it."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else None


def trusted_streams(levels: Sequence[Level]) -> int:
    """The greatest level before the first that is not to be trusted; 0 when that is the first."""
    best = 0
    for level in sorted(levels, key=lambda level: level.streams):
        if not level.is_trusted:
            break
        best = level.streams
    return best


def to_json(levels: Sequence[Level], *, kernel_stamps: bool) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "path": "gevent-patched StreamClient, as in a load worker, without Locust and journal",
        "kernel_stamps": kernel_stamps,
        "limits": {"ttft_error_p50_s": TRUST_P50_S, "ttft_error_p99_s": TRUST_P99_S},
        "levels": [msgspec.to_builtins(level) for level in levels],
        "trusted_streams": trusted_streams(levels),
    }
