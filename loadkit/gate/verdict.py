"""The gate's answer as JSON `loadkit.gate/1`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

SCHEMA = "loadkit.gate/1"
PASS, FAIL, INCONCLUSIVE = "PASS", "FAIL", "INCONCLUSIVE"
EXIT_CODES = {PASS: 0, FAIL: 1, INCONCLUSIVE: 3}

Code = Literal[
    "replay_mirage",
    "unlike_production",
    "cache_underperforms",
    "warm_cache",
    "append_only_violation",
    "wrapped_corpus",
    "too_few_samples",
    "not_reported",
    "invalid_timing",
    "forecast_refused",
]


def counted(number: int, noun: str) -> str:
    """`1 request`, `3 requests`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


class Reason(msgspec.Struct, frozen=True):
    """Why the verdict is not PASS.

    measured and expected are the figures compared (rates 0..1 or counts, the message has the unit);
    None: there is none. remedy: what to do about it.
    """

    code: Code
    message: str
    measured: float | None
    expected: float | None
    remedy: str


class Comparison(msgspec.Struct, frozen=True):
    """Token-weighted hit rates that were compared, 0..1.

    allowance: how far outside [expected_low, expected_high] the measured rate may lie, since
    another draw of the same traffic would move it: the measured half width, at least 2 points; None
    for a run too small to say.
    """

    measured: float | None
    expected_low: float | None
    expected_high: float | None
    allowance: float | None
    measured_replay: float | None
    expected_replay: float | None


class Verdict(msgspec.Struct, frozen=True):
    """PASS has no reasons; FAIL and INCONCLUSIVE have at least one, the weightiest first."""

    verdict: str
    reasons: tuple[Reason, ...]
    hit_rate: Comparison

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **msgspec.to_builtins(self)}
