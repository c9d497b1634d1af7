"""The report's tables as rows of ready words; HTML and Markdown print the same ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from loadkit.report.charts import NAMES, miss_name
from loadkit.report.fit import Fit
from loadkit.report.model import CAUSES, MISSES, PARTS, Curve, Facts, Side, Waits
from loadkit.report.words import (
    count,
    is_figure,
    milliseconds,
    percent,
    sentence,
    signed,
    yes_no,
)

# p99 of fewer than 100 is the slowest; of fewer than this it says nothing about the rest.
MIN_FOR_P99 = 20
OUTCOMES = ("scheduled", "ok", "http_error", "cut", "timeout", "malformed", "cancelled", "not_sent")


class Row(msgspec.Struct, frozen=True):
    """swatch, line: whose colour stands before the name. style: `total` or `sum`."""

    name: str
    cells: tuple[str, ...]
    swatch: str | None = None
    line: str | None = None
    style: str | None = None


class Table(msgspec.Struct, frozen=True):
    corner: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    label: str = ""


def split_table(sides: Sequence[Side]) -> Table:
    rows = [Row("hit rate", tuple(percent(s.hit_rate) for s in sides), style="total")]
    rows.append(Row("interval", tuple(_interval(side) for side in sides)))
    for part in PARTS:
        if part == "replay_same_session" and not any(side.parts[part] for side in sides):
            continue
        cells = tuple(percent(side.parts[part]) for side in sides)
        rows.append(Row(NAMES[part], cells, swatch=part))
    rows += _miss_rows(sides)
    organic = tuple(percent(side.organic_hit_rate) for side in sides)
    rows.append(Row("organic hit rate", organic, style="sum"))
    spans = tuple(_span(side.organic_low, side.organic_high, side.measured) for side in sides)
    rows.append(Row("its interval", spans))
    return Table("share of prompt tokens", tuple(map(_short, sides)), tuple(rows))


def _miss_rows(sides: Sequence[Side]) -> list[Row]:
    """The miss by cause, as far as sides know it; what no side has is left out."""
    return [
        Row(miss_name(part, sides), tuple(percent(s.misses.get(part)) for s in sides), swatch=part)
        for part in MISSES
        if any(side.misses.get(part) for side in sides)
    ]


def _short(side: Side) -> str:
    """A label that fits a column on a phone."""
    return side.label.removesuffix(" run") if side.measured else "Expected"


def _interval(side: Side) -> str:
    return _span(side.low, side.high, side.measured)


def _span(low: float | None, high: float | None, measured: bool) -> str:
    if low is None or high is None:
        return "–"
    if low == high:
        return "–" if measured else "exact"
    return f"{percent(low)} – {percent(high)}"


def capacity_table(curve: Curve) -> Table:
    columns = (
        "hit rate",
        *(NAMES[part] for part in (*PARTS[:3], "miss_capacity", "miss_compulsory")),
    )
    keys = ("hit_rate", *PARTS[:3], "miss_capacity", "miss_compulsory")
    rows = [
        Row(count(point["capacity_tokens"]), tuple(percent(point[key]) for key in keys))
        for point in curve.points
    ]
    return Table("cache size, tokens", columns, tuple(rows), curve.label)


def wait_table(waits: Waits) -> Table:
    keys = ("p50", "p90", "p99")
    rows = []
    for cause in (*CAUSES, "all"):
        figures = waits.figures[cause]
        known = keys if figures["n"] >= MIN_FOR_P99 else keys[:-1]
        waited = (_wait(figures[key] if key in known else None) for key in keys)
        cells = (count(figures["n"]), *waited)
        style = "total" if cause == "all" else None
        rows.append(Row(cause, cells, line=None if style else cause, style=style))
    return Table(waits.label, ("n", *keys), tuple(rows), waits.label)


def _wait(seconds: float | None) -> str:
    return "–" if seconds is None else milliseconds(seconds)


def agreement_table(facts: Sequence[Facts]) -> Table:
    every = [one.run["reconciliation"] for one in facts]

    def row(name: str, pick: Callable[[dict[str, Any]], str], style: str | None = None) -> Row:
        return Row(name, tuple(pick(found) for found in every), style=style)

    def pair(name: str, key: str, field: str) -> Row:
        return row(name, lambda found: signed(found[key][field]))

    rows = (
        row("cached tokens: usage fields", lambda r: count(r["usage"]["cached_tokens"]), "total"),
        row("server's Prometheus counters", lambda r: count(r["prometheus"]["cached_tokens"])),
        row("predicted from replies as text", lambda r: count(r["prediction_from_text_tokens"])),
        row("− re-tokenised replies", lambda r: count(r["retokenised_tokens"])),
        row("= predicted", lambda r: count(r["prediction"]["cached_tokens"])),
        pair("unexplained: usage − Prometheus", "usage_vs_prometheus", "unexplained_cached_tokens"),
        pair("unexplained: usage − predicted", "usage_vs_prediction", "unexplained_cached_tokens"),
        row("prompt tokens: usage fields", lambda r: count(r["usage"]["prompt_tokens"]), "sum"),
        row("server's Prometheus counters", lambda r: count(r["prometheus"]["prompt_tokens"])),
        row("counted by the tokenizer", lambda r: count(r["prediction"]["prompt_tokens"])),
        row("requests without a final usage", lambda r: count(r["unanswered_requests"])),
        row("agree", lambda r: yes_no(r["agrees"]), "total"),
    )
    return Table("tokens", tuple(one.label for one in facts), rows)


def witness_lines(facts: Sequence[Facts]) -> list[str]:
    """Of each run whether its witnesses agree, and why not; nothing of a run that does not say."""
    found = ((one.label, one.run["reconciliation"].get("says")) for one in facts)
    return [f"{label}: {sentence(str(says))}" for label, says in found if says]


def facts_table(facts: Sequence[Facts]) -> Table:
    runs = [one.run for one in facts]

    def row(name: str, pick: Callable[[dict[str, Any]], str], style: str | None = None) -> Row:
        return Row(name, tuple(pick(run) for run in runs), style=style)

    outcomes = [
        row(name.replace("_", " "), _outcome(name)) for name in OUTCOMES if _some(name, runs)
    ]
    unreported = "requests_without_cached_tokens"
    quiet = (
        row("answers without cached tokens", lambda run: count(run["totals"][unreported])),
        row("truncations", lambda run: count(run["truncations"])),
        row("mutations", lambda run: count(run["mutations"])),
        row("torn journal bytes", lambda run: count(run["torn_bytes"])),
    )
    rows = (
        row("status", lambda run: "ok" if run["status"] == "ok" else _why(run), "total"),
        *outcomes,
        row("sessions answered", lambda run: count(run["split"].get("sessions"))),
        row("prompt tokens", lambda run: count(run["totals"]["prompt_tokens"])),
        row("output tokens", lambda run: count(run["totals"]["output_tokens"])),
        row("traffic", lambda run: f"{run['kind']}, {run['loop']} loop"),
        row("end to end p50", lambda run: milliseconds(run["latency"]["e2e_s"]["p50"])),
        row("end to end p99", lambda run: milliseconds(run["latency"]["e2e_s"]["p99"])),
        row("between tokens p50", lambda run: milliseconds(run["latency"]["itl_s"]["p50"])),
        row("wraps", lambda run: count(run["wraps"])),
        *(row for row in quiet if set(row.cells) != {"0"}),
        row("duration", lambda run: f"{run['duration_s']:,.0f} s"),
    )
    return Table("", tuple(one.label for one in facts), rows)


def load_table(facts: Sequence[Facts]) -> Table:
    """Was the load sent as planned? Rows that no run knows are left out."""
    runs = [one.run for one in facts]
    stalls = [_stalls(run) for run in runs]

    def row(name: str, pick: Callable[[dict[str, Any]], str], style: str | None = None) -> Row:
        return Row(name, tuple(pick(run) for run in runs), style=style)

    rows = [
        row(
            "schedule delay p50", lambda run: milliseconds(run["schedule_delay_s"]["p50"]), "total"
        ),
        row("schedule delay p99", lambda run: milliseconds(run["schedule_delay_s"]["p99"])),
        row("schedule delay, most", lambda run: milliseconds(run["schedule_delay_s"].get("max"))),
        row("load processes", lambda run: count(run["processes"])),
        row("load workers lost", lambda run: count(run.get("missing_workers"))),
    ]
    if any(_busiest(run) is not None for run in runs):
        rows.append(row("busiest load process, of one core", lambda run: percent(_busiest(run))))
    if any(found is not None for found in stalls):
        rows += [
            Row(
                "stalls of the load's own loop",
                tuple(count((f or {}).get("count")) for f in stalls),
            ),
            Row("longest stall", tuple(milliseconds((f or {}).get("longest_s")) for f in stalls)),
        ]
    return Table("", tuple(one.label for one in facts), tuple(rows))


def _busiest(run: dict[str, Any]) -> float | None:
    """CPU share of the busiest load process; None where nobody looked."""
    client = run.get("client")
    workers = client.get("workers") if isinstance(client, dict) else None
    shares = [one.get("cpu_share") for one in workers or () if isinstance(one, dict)]
    known = [share for share in shares if is_figure(share)]
    return max(known, default=None)


def _stalls(run: dict[str, Any]) -> dict[str, Any] | None:
    """How often and how long the load's event loop stood still; None where nobody looked."""
    found = run.get("loop_stalls")
    if not isinstance(found, dict):
        return None
    known = {key: found.get(key) for key in ("count", "longest_s")}
    return known if all(map(is_figure, known.values())) else None


def fit_answer(found: Fit) -> str:
    """`at 38% the median TTFT would be ...`, empty if nothing was asked or nothing can be told."""
    answer = found.answer
    if found.why_not is not None or answer is None:
        return ""
    if answer.why_not:
        return f"no time is told at {percent(answer.hit_rate, 0)}: {answer.why_not}"
    low, high, here = answer.low_s[49], answer.high_s[49], found.measured_s
    return (
        f"at {percent(answer.hit_rate, 0)} ({answer.label.lower()}) the median TTFT of these requests would be"
        f" about {milliseconds(answer.ttft_s[49])} ({milliseconds(low)} to {milliseconds(high)}) instead of"
        f" {milliseconds(here[49])}, the 90th percentile {milliseconds(answer.ttft_s[89])} instead of"
        f" {milliseconds(here[89])}"
    )


def fit_basis(found: Fit) -> str:
    """What the model found and how far off it is, or why it is refused."""
    if found.why_not is not None:
        return f"no time at another hit rate is told from this run: {found.why_not}"
    assert found.step_s is not None
    assert found.slope_s is not None
    assert found.slope_interval is not None
    assert found.error is not None
    assert found.constant_error is not None
    assert found.ratio is not None
    least, most = found.slope_interval
    low, middle, high = (f"{ratio:.2f}" for ratio in found.ratio)
    off, flat = (
        [percent(math.expm1(size), 0) for size in sizes]
        for sizes in (found.error, found.constant_error)
    )
    return (
        f"a step of the server lasts {milliseconds(found.step_s)} + {1e3 * found.slope_s:.3g} ms a"
        f" token ({1e3 * least:.3g} to {1e3 * most:.3g}), by {found.n:,} requests,"
        f" of which {found.num_cold:,} computed more than half of the prompt: the fewer these are,"
        " the less is known of what a token costs; on sessions left out of the fit it is"
        f" {off[0]} off in the median and {off[1]} in the mean, one and the same time for all"
        f" {flat[0]} and {flat[1]} (measured / model: 10th percentile {low}, median {middle}, 90th {high})"
    )


def _some(name: str, runs: Sequence[dict[str, Any]]) -> bool:
    """Outcomes that no run had are left out, but for the two that everybody looks for."""
    return name in ("scheduled", "ok") or any(run["requests"][name] for run in runs)


def _outcome(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda run: count(run["requests"][name])


def _why(run: dict[str, Any]) -> str:
    return "invalid: " + "; ".join(reason["message"] for reason in run["reasons"])
