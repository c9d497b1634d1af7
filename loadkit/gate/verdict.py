"""The gate's answer as JSON `loadkit.gate/1`."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

SCHEMA = "loadkit.gate/1"
PASS, FAIL, INCONCLUSIVE = "PASS", "FAIL", "INCONCLUSIVE"
EXIT_CODES = {PASS: 0, FAIL: 1, INCONCLUSIVE: 3}

Code = Literal[
    "replay_mirage",
    "unlike_production",
    "cache_underperforms",
    "warm_cache",
    "impossible_answers",
    "counters_doubtful",
    "witnesses_differ",
    "append_only_violation",
    "wrapped_corpus",
    "too_few_samples",
    "not_reported",
    "invalid_timing",
    "forecast_refused",
    "template_differs",
    "slo_missed",
    "regression",
]
CODES: tuple[Code, ...] = get_args(Code)
# What each code's check asks, as a CI shows it; a check is named by its code everywhere.
QUESTIONS: dict[str, str] = {
    "replay_mirage": "is the hit rate free of replays that production does not have",
    "unlike_production": "is the hit rate production's, for production's reasons",
    "cache_underperforms": "does the cache serve what it holds",
    "warm_cache": "was the cache empty of other runs' blocks",
    "impossible_answers": "can every answer's cached tokens have been there",
    "counters_doubtful": "did the server's counters count this run, and nothing else",
    "witnesses_differ": "do usage, counters and prediction tell the same",
    "append_only_violation": "was history only appended to",
    "wrapped_corpus": "was every prompt sent as often as planned",
    "too_few_samples": "is there enough to judge by",
    "not_reported": "did the server report cached tokens",
    "invalid_timing": "were requests sent when they should be",
    "forecast_refused": "is there a forecast that can be relied on, for this setting",
    "template_differs": "does the tokenizer give the prompts that the server computes",
    "slo_missed": "do enough requests meet the objectives",
    "regression": "is it no worse than the baseline run",
}


def counted(number: int, noun: str) -> str:
    """`1 request`, `3 requests`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


class Reason(msgspec.Struct, frozen=True):
    """Why the verdict is not PASS.

    measured and expected are the figures compared (rates 0..1 or counts, the message has the unit);
    None: there is none. interval: of `measured`, by sessions; None for a count or where nothing can
    be said. remedy: what to do about it. verdict: what this reason alone makes of the run.
    """

    code: Code
    message: str
    measured: float | None
    expected: float | None
    remedy: str
    interval: tuple[float, float] | None = None
    verdict: str = FAIL


class Comparison(msgspec.Struct, frozen=True):
    """Token-weighted hit rates that were compared, 0..1.

    allowance: how far outside [expected_low, expected_high] the measured rate may lie, since
    another draw of the same traffic would move it: the measured half width (wider if the forecast was
    counted in a log, which is a draw too), at least 2 points; None for a run too small to say.
    replay_allowance: the same of the share that was replayed. interval: [low, high] of the measured rate by the same half width.
    half_width: of the measured rate, before any limit. organic: rate of the requests that are no replay, with its interval, and what to expect of it.
    """

    measured: float | None
    expected_low: float | None
    expected_high: float | None
    allowance: float | None
    measured_replay: float | None
    expected_replay: float | None
    interval: tuple[float, float] | None = None
    sessions: int | None = None
    measured_organic: float | None = None
    organic_interval: tuple[float, float] | None = None
    expected_organic: float | None = None
    half_width: float | None = None
    replay_allowance: float | None = None


class Check(msgspec.Struct, frozen=True):
    """One code's outcome. says: the reason's message, or why nothing was asked."""

    code: str
    question: str
    outcome: Literal["passed", "failed", "inconclusive", "skipped"]
    says: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """PASS has no reasons; FAIL and INCONCLUSIVE have at least one, the weightiest first.

    checks: every code once, those without a reason too. notes: what does not decide but should be
    known. thresholds: the limits that were applied, and whose they are.
    """

    verdict: str
    reasons: tuple[Reason, ...]
    hit_rate: Comparison
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()
    baseline: dict[str, Any] | None = None
    thresholds: dict[str, Any] = {}
    thresholds_from: str = ""

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **msgspec.to_builtins(self)}
