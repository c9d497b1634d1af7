"""Tables of what was found beside the rates: time, append-only, prefixes, diversity, objectives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadkit.report.charts import NAMES
from loadkit.report.fit import Fit
from loadkit.report.model import Facts
from loadkit.report.objectives import Objectives
from loadkit.report.sent import Sent
from loadkit.report.tables import Row, Table
from loadkit.report.timeline import Timeline
from loadkit.report.words import UNKNOWN, count, is_figure, milliseconds, percent, signed, yes_no

MAX_PREFIXES = 10
_FIT_SHARES = (10, 50, 90)  # in percent, as the fit's SHARES from 1%


def time_table(times: Timeline) -> Table:
    parts = ("continuation", "shared", "replay_cross_session")
    columns = ("requests", "hit rate", *(NAMES[part] for part in parts), "so far")
    rows = [
        Row(
            f"{window.start_s:.0f}–{window.end_s:.0f} s",
            (
                count(window.requests),
                percent(window.hit_rate),
                *(percent(window.parts[part]) for part in parts),
                percent(window.so_far),
            ),
        )
        for window in times.windows
    ]
    return Table("sent", columns, tuple(rows), times.label)


def fit_table(found: Fit) -> Table | None:
    """Measured, by the model at the run's own rate, and at the rate asked for; None without it."""
    answer = found.answer
    if answer is None or answer.why_not:
        return None
    here, there = percent(found.hit_rate, 0), percent(answer.hit_rate, 0)
    rows = (
        Row(f"measured at {here}", _times(found.measured_s)),
        Row(f"model at {here}", _times(found.own_s)),
        Row(f"model at {there}", _times(answer.ttft_s), style="total"),
        Row("from", _times(answer.low_s)),
        Row("to", _times(answer.high_s)),
    )
    return Table("time to first token", tuple(f"p{share}" for share in _FIT_SHARES), rows)


def _times(at_shares: Sequence[float]) -> tuple[str, ...]:
    return tuple(milliseconds(at_shares[share - 1]) for share in _FIT_SHARES)


def broken_table(sent: Sent, slope_s: float | None) -> Table | None:
    """What broke append-only, costliest first; None if nothing did. slope_s: seconds that a token
    costs by the fit, None if that was refused."""
    found = sent.append_only or {}
    causes = found.get("causes") or ()
    if not causes:
        return None
    rows = []
    for cause in causes:
        lost, pairs = cause["tokens_lost"], cause["pairs"]
        wait = "–" if slope_s is None or not pairs else milliseconds(slope_s * lost / pairs)
        cells = (count(pairs), count(lost), percent(cause["lost_rate"]), wait)
        rows.append(Row(cause["title"], cells))
    columns = ("turns", "tokens lost", "of all", "TTFT a turn")
    return Table("what broke it", columns, tuple(rows), sent.label)


def prefix_table(sent: Sent) -> Table | None:
    places = (sent.diversity or {}).get("leaderboard") or ()
    if not places:
        return None
    shows_words = any(place.get("words") for place in places)
    rows = []
    for rank, place in enumerate(places[:MAX_PREFIXES], 1):
        start, tokens = place["start_token"], place["tokens"]
        cells = (
            count(place["sessions"]),
            count(place["requests"]),
            percent(place["hit_share"]),
            *([place.get("words") or "–"] if shows_words else []),
        )
        rows.append(Row(f"{rank}: {start:,} – {start + tokens:,}", cells))
    columns = ("sessions", "requests", "of shared hits", *(["begins"] if shows_words else []))
    return Table("tokens of the prompt", columns, tuple(rows), sent.label)


def diversity_table(every: Sequence[Sent]) -> Table | None:
    known = [(one.label, one.diversity) for one in every if one.diversity]
    if not known:
        return None

    def row(name: str, pick: Any) -> Row:
        return Row(name, tuple(pick(found) for _, found in known))

    rows = (
        row("distinct prompts", lambda d: count(d.get("distinct_prompts"))),
        row("of all requests", lambda d: percent(d.get("distinct_share"))),
        row("effective prompts", lambda d: _tenth(d.get("effective_prompts"))),
        row("next prompt is a known one", lambda d: percent(d.get("prompt_coverage"))),
        row("next block is a known one", lambda d: percent(d.get("prefix_coverage"))),
        row("shared prefixes", lambda d: count(d.get("shared_prefixes"))),
        row("near-replays", lambda d: count((d.get("near_replay") or {}).get("near_replays"))),
        row("working set of a minute, tokens", _working_set),
    )
    told = tuple(row for row in rows if set(row.cells) != {UNKNOWN})  # too short for a minute
    return Table("", tuple(label for label, _ in known), told)


def _tenth(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.1f}"


def _working_set(found: dict[str, Any]) -> str:
    sizes = {one["seconds"]: one["mean_tokens"] for one in found.get("working_set") or ()}
    return count(sizes.get(60.0))


# Steps of reconciliation.usage_gap in run.json, in order, as a person reads them.
_STEPS = {
    "matched": "longest known prefix of each prompt",
    "block_rounding": "only whole blocks are kept",
    "last_block_rule": "the last token is always computed",
    "reusable": "= reusable in an infinite cache",
    "caching_off": "the prefix cache is off",
    "eviction": "evicted at the server's size",
    "kept_places": "states and windows are kept elsewhere",
    "held_by_running": "room held by running requests",
    "step_order": "the order in which the engine worked",
    "warm_cache": "from before the run, or from others",
    "not_reported": "answers without usable usage",
    "unexplained": "unexplained",
    "usage": "= reported by the answers",
}
_SUMS = ("matched", "reusable", "usage")


def gap_table(facts: Sequence[Facts]) -> Table | None:
    """From what was sent to what was reported, each step by its name; None where no run has it."""
    gaps = [one.run["reconciliation"].get("usage_gap") for one in facts]
    known = [gap if isinstance(gap, dict) else {} for gap in gaps]
    if not any(known):
        return None
    rows = []
    for key, words in _STEPS.items():
        if key == "caching_off" and all(gap.get(key) is None for gap in known):
            continue
        shown = count if key in _SUMS else signed
        cells = tuple(shown(gap.get(key)) for gap in known)
        rows.append(Row(words, cells, style="total" if key in _SUMS else None))
    return Table("cached tokens", tuple(one.label for one in facts), tuple(rows))


def objectives_table(found: Objectives) -> Table:
    rows = []
    for one in found.rows:
        limit = "" if one.limit_s is None else f" ≤ {milliseconds(one.limit_s)}"
        low, high = one.interval
        met = yes_no(one.share >= found.target) if one.limit_s is None else ""
        cells = (
            f"{one.met:,} of {one.requests:,}",
            percent(one.share),
            f"{percent(low)} – {percent(high)}",
            met,
        )
        rows.append(
            Row(one.name.removesuffix("_s").upper() + limit if limit else one.name, cells,
                style=None if limit else "total")
        )  # fmt: skip
    columns = ("met", "share", "interval", f"at least {100 * found.target:g}%")
    return Table("objective", columns, tuple(rows), found.label)


_STAGE_COLUMNS = {
    "rate_per_s": "starts/s",
    "requests": "requests",
    "ok": "answered",
    "goodput_per_s": "goodput/s",
    "goodput_share": "met all",
}


def stage_table(one: Facts) -> Table | None:
    """Goodput a stage of the load, where the run recorded stages; None where it did not."""
    stages = one.run.get("stages")
    if not isinstance(stages, list) or not stages or not all(isinstance(s, dict) for s in stages):
        return None
    keys = [key for key in _STAGE_COLUMNS if any(stage.get(key) is not None for stage in stages)]
    rows = [
        Row(
            f"{_figure(stage.get('start_s'))} – {_figure(stage.get('end_s'))} s",
            tuple(_figure(stage.get(key), is_share=key.endswith("share")) for key in keys),
        )
        for stage in stages
    ]
    columns = tuple(_STAGE_COLUMNS[key] for key in keys)
    return Table("sessions started", columns, tuple(rows), one.label)


def goodput_words(one: Facts) -> str | None:
    """Goodput and knee in a sentence; None where the run has neither."""
    found = one.run.get("goodput")
    if not isinstance(found, dict) or found.get("goodput_per_s") is None:
        return None
    words = f"{one.label}: goodput {_figure(found['goodput_per_s'])} requests a second"
    if not one.run.get("stages"):
        return words
    knee = found.get("knee_per_s")
    if knee is None:
        return f"{words}; no stage met the objectives"
    return f"{words}; the knee is at {_figure(knee)} session starts a second"


def _figure(value: Any, *, is_share: bool = False) -> str:
    if not is_figure(value) or (is_share and value > 1):
        return UNKNOWN
    if is_share:
        return percent(value)
    return f"{value:,.3g}" if isinstance(value, float) else f"{value:,}"
