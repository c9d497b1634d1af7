"""When no forecast is made: each check gives a reason, which says what would help."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from loadkit.forecast.model import Scenario
from loadkit.forecast.sample import Sample
from loadkit.forecast.torn import MIN_GAPS, Mended

MIN_SESSIONS = 100
MIN_EFFECTIVE_SESSIONS = 30
MIN_WINDOW_S = 15 * 60
MIN_PREFIX_S = 5 * 60  # a longer horizon is judged by what rolling origins missed
MIN_GAPS_IN_WINDOW = 5
MAX_TRAFFIC = 100
NO_TENANTS = (
    "the log names no tenants: give rows a cache_salt (or `tenant` in loadkit's own format)"
)
NO_TURNS = (
    "requests sampled one by one need the turns that came before each: a log of messages, and the"
    " served model's tokenizer"
)
# Off by so much at most on the worlds marked `design` and `revision` (.05, where agents fork), and by
# .08 to .21 in two worlds where later turns are shared.
MAX_SURPLUS = 0.075
MAX_HORIZON = 10  # windows: beyond it no tail was ever checked


def effective_sessions(sample: Sample) -> float:
    """Kish's effective size of the session block masses: sessions, if all were equally heavy."""
    mass = sample.blocks_by_session()
    squares = float(np.sum(mass**2))
    return float(mass.sum() ** 2 / squares) if squares else 0.0


def refusals(sample: Sample, scenario: Scenario) -> list[str]:
    """Reasons against growing this sample's traffic; none means go on."""
    return [*_too_small(sample), *_too_short(sample), *_no_clock(sample, scenario),
            *_too_far(sample, scenario), *_too_little_room(sample, scenario)]  # fmt: skip


def rerun_refusals(sample: Sample, scenario: Scenario) -> list[str]:
    """Reasons against running the log itself through the scenario: it must have a clock for that."""
    if scenario.ttl_s is None and scenario.horizon_s is None and scenario.is_pooled:
        return []
    return [*_no_clock(sample, scenario), *_too_little_room(sample, scenario)]


def prefix_refusals(sample: Sample, scenario: Scenario) -> list[str]:
    """Reasons against extending the log's window to the scenario's horizon."""
    reasons = [*_too_small(sample), *_too_short(sample, MIN_PREFIX_S)]
    reasons += _no_clock(sample, scenario)
    if scenario.horizon_s is not None and scenario.horizon_s > MAX_HORIZON * sample.window_s:
        reasons.append(
            f"a horizon of {scenario.horizon_s:g} s is more than {MAX_HORIZON} times the window of"
            f" {sample.window_s:.0f} s: log for longer"
        )
    if not scenario.keeps_traffic:
        reasons.append(
            "traffic, replicas and a longer time cannot be extrapolated together: forecast the"
            " traffic without a longer horizon"
        )
    return reasons


def torn_refusals(mended: Mended, scenario: Scenario) -> list[str]:
    """Reasons against growing sessions that were made of torn requests."""
    reasons = [*_not_one_by_one(mended, scenario)]
    if scenario.horizon_s is not None:
        reasons.append("a horizon cannot be forecast from requests sampled one by one")
    if mended.num_gaps >= MIN_GAPS or mended.trace.arrival_s is None:
        return reasons
    asked = (scenario.capacity_blocks, scenario.ttl_s)
    if asked != (None, None) or not scenario.is_pooled:
        reasons.append(
            f"how long turns are apart shows in sessions of which the log has several requests; it has"
            f" {mended.num_gaps} such pairs, fewer than {MIN_GAPS}: only one infinite cache can be"
            " forecast. Log for longer, or a larger share"
        )
    return reasons


def _not_one_by_one(mended: Mended, scenario: Scenario) -> Iterator[str]:
    """Of requests drawn one by one, a share 1/R of the later turns has the turn before in the log.

    More have it where what people send later in a session is shared too (a tree of menus), so that
    strangers pass for one session, or if whole sessions were drawn; fewer if the traffic is wrong.
    """
    if mended.before_share is None:
        return
    expected = 1 / scenario.traffic
    if abs(mended.before_share - expected) > MAX_SURPLUS:
        yield (
            f"{mended.before_share:.0%} of the later turns have the turn before them in the log, where"
            f" {expected:.0%} would if requests were drawn one by one at 1/{scenario.traffic:g} of"
            " production: sessions cannot be told apart, or the log was drawn otherwise"
        )


def _too_small(sample: Sample) -> Iterator[str]:
    if sample.num_sessions < MIN_SESSIONS:
        yield (
            f"the log has {sample.num_sessions} sessions, fewer than {MIN_SESSIONS}:"
            " log whole sessions for longer, or of more users"
        )
    effective = effective_sessions(sample)
    if effective < MIN_EFFECTIVE_SESSIONS <= sample.num_sessions:
        yield (
            f"a few sessions hold most of the blocks, as if the log had {effective:.0f} sessions:"
            f" at least {MIN_EFFECTIVE_SESSIONS} are needed"
        )


def _too_short(sample: Sample, least_s: float = MIN_WINDOW_S) -> Iterator[str]:
    if not sample.has_clock:
        return
    if sample.window_s < least_s:
        yield f"the log spans {sample.window_s:.0f} s: at least {least_s:.0f} s are needed"
        return
    gap = _median_own_gap(sample)
    if gap is not None and sample.window_s < MIN_GAPS_IN_WINDOW * gap:
        yield (
            f"turns of a session are {gap:.0f} s apart and the log spans {sample.window_s:.0f} s:"
            f" at least {MIN_GAPS_IN_WINDOW} such gaps are needed"
        )


def _median_own_gap(sample: Sample) -> float | None:
    """Median time between requests of one session; None if no session has two."""
    arrives = sample.stream.is_arrival
    session, time_s = sample.session_of_event[arrives], sample.time_s[arrives]
    order = np.lexsort((time_s, session))
    gaps = np.diff(time_s[order])[np.diff(session[order]) == 0]
    return float(np.median(gaps)) if len(gaps) else None


def _no_clock(sample: Sample, scenario: Scenario) -> Iterator[str]:
    if sample.has_clock:
        return
    asked = (scenario.capacity_blocks, scenario.ttl_s, scenario.horizon_s)
    if asked != (None, None, None) or not scenario.is_pooled:
        yield (
            "the log has no timestamps: only one infinite cache can be forecast,"
            " without capacity, time to live, horizon or routing, since nothing says what a cache"
            " holds between two turns"
        )


def _too_far(sample: Sample, scenario: Scenario) -> Iterator[str]:
    remain = scenario.traffic * sample.num_sessions
    if remain < MIN_EFFECTIVE_SESSIONS <= sample.num_sessions:
        yield (
            f"at traffic {scenario.traffic:g}x {remain:.0f} of the log's sessions remain, fewer than"
            f" {MIN_EFFECTIVE_SESSIONS}: log for longer"
        )
    if scenario.traffic > MAX_TRAFFIC:
        yield (
            f"traffic {scenario.traffic:g}x is beyond {MAX_TRAFFIC}x:"
            " log a larger share of production"
        )


def _too_little_room(sample: Sample, scenario: Scenario) -> Iterator[str]:
    if scenario.capacity_blocks is None:
        return
    room = scenario.capacity_blocks // (1 if scenario.is_pooled else scenario.replicas)
    longest = sample.longest_request()
    if room < longest:
        yield (
            f"the longest request takes {longest:,} blocks and a cache holds {room:,}:"
            " no server could serve this log"
        )
