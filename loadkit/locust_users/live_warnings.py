"""What the live view warns about: sentences for a person, codes as the gate has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REPLAY_SHARE_LIMIT = 0.10
"""Replay above this share of hit tokens is contamination worth a warning.

A judgement, not a measurement: organic traffic repeats itself a little (retries, common questions).
"""

SCHEDULE_DELAY_LIMIT_S = 0.1
"""p99 of actual minus intended send above which timings tell more about the load machine."""


def warnings_of(view: Mapping[str, Any]) -> list[dict[str, str]]:
    """Warnings for a `loadkit.live/1` object without its `warnings`, most important first."""
    checks = {
        "replay_mirage": _replay,
        "unlike_production": _unlike_expected,
        "invalid_timing": _schedule_delay,
        "not_reported": _not_reported,
    }
    found = ((code, check(view)) for code, check in checks.items())
    return [{"code": code, "message": text} for code, text in found if text]


def _replay(view: Mapping[str, Any]) -> str | None:
    share = view["replay_share_of_hits"]
    if share is None or share <= REPLAY_SHARE_LIMIT:
        return None
    return (
        f"Replay makes {share:.0%} of the hit tokens: identical prompts were sent again. "
        "Production will not see these hits. Compare the organic hit rate instead."
    )


def _unlike_expected(view: Mapping[str, Any]) -> str | None:
    expected, rate = view["expected_hit_rate"], view["hit_rate"]
    if expected is None or rate is None or rate <= expected["high"]:
        return None
    return (
        f"The hit rate so far, {rate:.1%}, is above the upper end of what production is expected "
        f"to see, {expected['high']:.1%}."
    )


def _schedule_delay(view: Mapping[str, Any]) -> str | None:
    p99 = view["schedule_delay"]["p99_s"]
    if p99 is None or p99 <= SCHEDULE_DELAY_LIMIT_S:
        return None
    return (
        f"Requests leave late: schedule delay p99 is {p99 * 1000:,.0f} ms "
        f"(limit {SCHEDULE_DELAY_LIMIT_S * 1000:.0f} ms). Use more workers or a lower rate."
    )


def _not_reported(view: Mapping[str, Any]) -> str | None:
    number = view["not_reported_requests"]
    if not number:
        return None
    return (
        f"{number:,} answers did not report cached tokens. They are in no rate, and are not "
        "misses. vLLM needs --enable-prompt-tokens-details, SGLang --enable-cache-report."
    )
