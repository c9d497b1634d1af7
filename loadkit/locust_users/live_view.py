"""The live view as one JSON object: what the web tab draws, and nothing it has to work out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from loadkit.locust_users.live_tally import COLUMNS, Tally, percentile_s
from loadkit.locust_users.live_warnings import warnings_of
from loadkit.runs.latency import CAUSES as PARTS
from loadkit.runs.record import OUTCOMES


class ExpectedHitRate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The forecast to draw behind the measurement: token-weighted hit rates, 0..1."""

    estimate: float
    low: float
    high: float


def view_of(tally: Tally, expected: ExpectedHitRate | None = None) -> dict[str, Any]:
    """Schema `loadkit.live/1`. Rates are 0..1, None without tokens.

    hit_rate = hit tokens / prompt tokens whose cached tokens were reported (token-weighted).
    organic_hit_rate = (continuation + shared) / prompt tokens of requests that were no replay.
    Series columns are prompt tokens a bucket of `width_s` seconds; `at_s` is the bucket's start,
    in seconds after the run's start, counted when the request ended; empty buckets are left out.
    """
    total = tally.series.total()
    view: dict[str, Any] = {
        "schema": "loadkit.live/1",
        "requests": total["requests"],
        "totals": _parts(total),
        **_rates(total),
        "split_source": _split_source(tally.sources),
        "series": _series(tally),
        "ttft": [_ttft(tally, part) for part in (*PARTS, "not_reported") if part in tally.ttft],
        "outcomes": _outcomes(tally),
        "schedule_delay": _schedule_delay(tally),
        "not_reported_requests": tally.not_reported_requests,
        "expected_hit_rate": None if expected is None else msgspec.structs.asdict(expected),
    }
    view["warnings"] = warnings_of(view)
    return view


def _parts(columns: Mapping[str, int]) -> dict[str, int]:
    """Counts of one period, with both kinds of replay added up as `replay` too."""
    replay = columns["replay_same_session"] + columns["replay_cross_session"]
    return {"replay": replay, **{k: v for k, v in columns.items() if k != "requests"}}


def _rates(total: Mapping[str, int]) -> dict[str, Any]:
    genuine = total["continuation"] + total["shared"]
    replay = total["replay_same_session"] + total["replay_cross_session"]
    prompt = genuine + replay + total["miss"]
    return {
        "prompt_tokens": prompt,
        "hit_rate": _ratio(genuine + replay, prompt),
        "organic_hit_rate": _ratio(genuine, prompt - total["replayed_prompt"]),
        "replay_share_of_hits": _ratio(replay, genuine + replay),
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _split_source(sources: Mapping[str, int]) -> str | None:
    """Where the split comes from: "server", "estimated", "mixed"; None without any."""
    return "mixed" if len(sources) > 1 else next(iter(sources), None)


def _series(tally: Tally) -> dict[str, Any]:
    rows = tally.series.rows()
    parts = [_parts(dict(zip(COLUMNS, row[1:], strict=True))) for row in rows]
    shown = (*PARTS, "not_reported")
    return {
        "width_s": tally.series.width_s,
        "at_s": [row[0] * tally.series.width_s for row in rows],
        **{name: [part[name] for part in parts] for name in shown},
    }


def _ttft(tally: Tally, part: str) -> dict[str, Any]:
    source = tally.ttft[part]
    return {
        "cause": part,
        "requests": source.get_total_count(),
        "p50_s": percentile_s(source, 50),
        "p99_s": percentile_s(source, 99),
    }


def _outcomes(tally: Tally) -> list[dict[str, Any]]:
    present = (name for name in OUTCOMES if name in tally.outcomes)
    return [{"outcome": name, "requests": tally.outcomes[name]} for name in present]


def _schedule_delay(tally: Tally) -> dict[str, float | None]:
    return {
        "p50_s": percentile_s(tally.schedule_delay, 50),
        "p99_s": percentile_s(tally.schedule_delay, 99),
    }
