"""Do enough requests meet the objectives (slo of the profile or of gate.yaml)?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from loadkit.gate.policy import Policy
from loadkit.gate.requests import Requests
from loadkit.gate.sessions import ratio, wilson
from loadkit.gate.verdict import FAIL, INCONCLUSIVE, Reason, counted

LIMITS = ("ttft_s", "tpot_s", "e2e_s")
# A request that was never sent, or that we left on purpose, says nothing about the server.
_NOT_THE_SERVERS = ("not_sent", "cancelled")
BoolArray = npt.NDArray[np.bool_]


def missed(requests: Requests, policy: Policy) -> Iterator[Reason]:
    """FAIL if even the upper end of the share that met them all is below the objective's share;
    INCONCLUSIVE if the share is below it but chance alone explains that."""
    if policy.slo is None:
        return
    sent, met = judged(requests, policy)
    total, good = int(sent.sum()), int((met & sent).sum())
    if total < (least := policy.thresholds.min_requests):
        message = f"objectives need {least} requests, {total} were sent"
        yield Reason("slo_missed", message, total, least, "send more", None, INCONCLUSIVE)
        return
    share, target = good / total, policy.slo.share
    if share >= target:
        return
    low, high = share_interval(requests, sent, met, policy)
    unsure = high >= target
    message = (
        f"{good} of {counted(total, 'request')} ({100 * share:.1f}%) met the objectives, the"
        f" objective is {100 * target:g}%: {_each(requests, sent, policy)}"
    )
    yield Reason(
        "slo_missed",
        message + ("; with so few sessions that may be chance" if unsure else ""),
        share,
        target,
        "send more sessions"
        if unsure
        else "see TTFT by cause in the report; add replicas or cache",
        (low, high),
        INCONCLUSIVE if unsure else FAIL,
    )


def judged(requests: Requests, policy: Policy) -> tuple[BoolArray, BoolArray]:
    """Which requests count, and which met every limit. No answer meets nothing; a time that was not
    measured was not met, but for TPOT, which an answer of one token does not have."""
    sent: BoolArray = ~np.isin(requests.outcome, _NOT_THE_SERVERS)
    met = requests.is_ok.copy()
    for name in LIMITS:
        met &= _within(requests, name, policy)
    return sent, met


def _within(requests: Requests, name: str, policy: Policy) -> BoolArray:
    limit = None if policy.slo is None else getattr(policy.slo, name)
    values = requests.number[name]
    if limit is None:
        return np.ones(len(values), dtype=bool)
    with np.errstate(invalid="ignore"):
        within: BoolArray = values <= limit
    if name == "tpot_s":
        within = within | np.isnan(values)
    return within


def share_interval(
    requests: Requests, sent: BoolArray, met: BoolArray, policy: Policy
) -> tuple[float, float]:
    """Wilson's interval at the number of independent requests that the sessions are worth (n over
    the design effect of Kish, at least 1), so that it holds near 0 and 1 where a jackknife says 0."""
    total, good = int(sent.sum()), int((met & sent).sum())
    share = good / total
    part = requests.by_session((met & sent).astype(np.float64))
    whole = requests.by_session(sent.astype(np.float64))
    found = ratio(part[whole > 0], whole[whole > 0], policy.thresholds.confidence)
    worth = float(total)
    if 0 < good < total and found is not None and found.half_width:
        low, high = wilson(share, total, policy.thresholds.confidence)
        worth = total / max(1.0, (2 * found.half_width / (high - low)) ** 2)
    elif good in (0, total):  # no spread to measure: as if a session were one request
        worth = float((whole > 0).sum())
    return wilson(share, worth, policy.thresholds.confidence)


def _each(requests: Requests, sent: BoolArray, policy: Policy) -> str:
    """`ttft_s <= 0.5: 12 missed`, for every limit, and how many got no answer."""
    parts = []
    for name in LIMITS:
        limit = getattr(policy.slo, name)
        if limit is not None:
            over = int((sent & requests.is_ok & ~_within(requests, name, policy)).sum())
            parts.append(f"{over} over {name} {limit:g}")
    silent = int((sent & ~requests.is_ok).sum())
    return ", ".join([*parts, *([f"{silent} without an answer"] if silent else [])])
