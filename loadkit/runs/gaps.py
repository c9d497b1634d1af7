"""Why two witnesses of one run differ, in tokens: each reason that can be computed has its name.

From what was sent to what the server reported:

    matched           longest prefix of each prompt that was computed before, to the token
    + block_rounding  only whole blocks are kept
    + last_block_rule the last token of a prompt is always computed, so its block never hits
    = reusable        what an infinite cache of the run's own traffic gives
    + caching_off     the server's prefix cache is off, so nothing can hit
    + eviction        seen, but pushed out at the server's capacity
    + kept_places     seen, but the server keeps states and windows elsewhere in the prompt
    + held_by_running room that running requests held; at most what simulating them costs
    + step_order      of the rest, what lies in the prediction's interval: an order of the engine's
                      work that the client cannot tell from the likeliest one
    + warm_cache      taken in all beyond what the run's own traffic could give: from before the run,
                      or from other traffic. Net: of requests under way together the server may
                      compute another one first than was sent first, and what one gains the other
                      loses
    + not_reported    expected on answers that came without (possible) usage
    + unexplained     the rest
    = usage           cached tokens as the answers report them

Parts are signed: a loss is negative. None: cannot be computed; then it is in `unexplained`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from loadkit.core.trace import IntArray
from loadkit.runs.prediction import Predictions
from loadkit.runs.splits import has_usable_usage
from loadkit.runs.view import View

PARTS = (
    "block_rounding",
    "last_block_rule",
    "caching_off",
    "eviction",
    "kept_places",
    "held_by_running",
    "step_order",
    "warm_cache",
    "not_reported",
)


def usage_gap(view: View, *, by_place: bool = False) -> dict[str, int | None] | None:
    """The steps from matched tokens to usage, of the measured phase. None without a prediction or
    without any usage. by_place: the server keeps states or windows at a few places."""
    predictions = view.predictions
    usable = np.array([has_usable_usage(record) for record in view.answered], np.bool_)
    if predictions is None or not usable.any():
        return None
    best = predictions.best
    cached = np.array([record.cached_tokens or 0 for record in view.answered], np.int64)
    cached[~usable] = 0
    reusable = int(best.reusable_tokens.sum())
    lost = difference(_sum(best.resident_tokens), reusable)
    steps: dict[str, int | None] = {
        "matched": _sum(predictions.matched),
        "block_rounding": difference(_sum(predictions.unruled), _sum(predictions.matched)),
        "last_block_rule": difference(reusable, _sum(predictions.unruled)),
        "reusable": reusable,
        "caching_off": lost if best.caching_off else None,
        "eviction": None if best.caching_off or by_place else lost,
        "kept_places": lost if by_place else 0,
        "warm_cache": max(0, int((cached - best.reusable_tokens)[usable].sum())),
        "not_reported": -int(best.expected_tokens[~usable].sum()),
    }
    rest = int(cached.sum()) - reusable
    named = ("caching_off", "eviction", "kept_places", "warm_cache", "not_reported")
    rest -= sum(steps[name] or 0 for name in named)
    steps["held_by_running"] = _held(predictions, rest)
    rest -= steps["held_by_running"] or 0
    steps["step_order"] = _in_the_interval(predictions, rest)
    steps["unexplained"] = rest - (steps["step_order"] or 0)
    steps["usage"] = int(cached.sum())
    return steps


def _held(predictions: Predictions, rest: int) -> int | None:
    """How much of the rest running requests explain: no more than simulating them costs."""
    if predictions.overlap_tokens is None:
        return None
    cost = predictions.overlap_tokens - int(predictions.best.expected_tokens.sum())
    return max(rest, cost) if rest < 0 and cost < 0 else 0


def _in_the_interval(predictions: Predictions, rest: int) -> int | None:
    interval = predictions.best.range_tokens
    if interval is None:
        return None
    expected = int(predictions.best.expected_tokens.sum())
    return min(max(rest, interval[0] - expected), interval[1] - expected)


def prometheus_gap(
    usage: tuple[int | None, int | None],
    counted: tuple[int | None, int | None],
    unanswered: int,
) -> dict[str, Any] | None:
    """The steps from usage to the server's counters, over the whole run; pairs of (cached, prompt).

    More prompt tokens than all answers account for are other traffic (its own hits with it), unless
    requests of ours without usage may be in them: then they are `unanswered_or_other`. More cached
    tokens on equal prompt tokens: the answers under-report. None without either witness.
    """
    if None in usage or None in counted:
        return None
    cached, prompt = (counted[i] - usage[i] for i in (0, 1))  # type: ignore[operator]
    gap: dict[str, Any] = dict.fromkeys(
        ("other_traffic", "unanswered_or_other", "under_reported", "unexplained"), 0
    )
    gap["other_prompt_tokens"] = max(prompt, 0)
    named = min(max(cached, 0), max(prompt, 0))
    if prompt > 0:
        gap["unanswered_or_other" if unanswered else "other_traffic"] = named
    elif prompt == 0 and cached > 0:
        gap["under_reported"] = named = cached
    gap["unexplained"] = cached - named
    return gap


def _sum(tokens: IntArray | None) -> int | None:
    return None if tokens is None else int(tokens.sum())


def difference(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left - right
