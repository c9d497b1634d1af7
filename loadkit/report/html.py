"""The report as one HTML file: no network, no script, everything foreign escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from loadkit.report import findings, tables
from loadkit.report.chart_fit import fit_chart
from loadkit.report.chart_time import time_chart
from loadkit.report.charts import NAMES, capacity_chart, split_bars, time_span, wait_chart
from loadkit.report.fit import Fit
from loadkit.report.model import CAUSES, Facts, Report
from loadkit.report.words import UNKNOWN, clean, percent, sentence

WIDE, HALF, NARROW = 950.0, 460.0, 332.0
_STACK = ("continuation", "shared", "replay", "miss_capacity", "miss_compulsory")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("loadkit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    environment.filters["sentence"] = sentence
    return environment


def render(report: Report) -> str:
    """The whole page."""
    environment = _environment()
    source, _, _ = PackageLoader("loadkit.report").get_source(environment, "style.css")
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    page = environment.get_template("report.html.j2")
    return page.render(
        style=Markup(source), style_hash=Markup(f"sha256-{digest}"), **_content(report)
    )


def _content(report: Report) -> dict[str, Any]:
    verdict = str((report.gate or {}).get("verdict"))
    return {
        "report": report,
        "verdict_class": verdict if verdict in ("PASS", "FAIL") else "INCONCLUSIVE",
        "figures": _figures(report),
        "split_chart": _both(lambda width: split_bars(report.sides, width), WIDE),
        "split_table": tables.split_table(report.sides),
        "setting": _setting(report),
        "capacity_charts": [
            _both(
                lambda width, c=curve: capacity_chart(c, width), _wide(report.curves), curve.label
            )
            for curve in report.curves
        ],
        "capacity_tables": [tables.capacity_table(curve) for curve in report.curves],
        "stack_names": [(part, NAMES[part]) for part in _STACK],
        "wait_charts": _wait_charts(report),
        "wait_tables": [tables.wait_table(waits) for waits in report.waits],
        "causes": CAUSES,
        **_found(report),
        "agreement": tables.agreement_table(report.facts),
        "witnesses": tables.witness_lines(report.facts),
        "facts": tables.facts_table(report.facts),
        "notes": _notes(report),
        "setting_rows": _setting_rows(report),
    }


def _found(report: Report) -> dict[str, Any]:
    """What was found beside the rates; sections without anything to say are left out."""
    slopes = {one.label: None if one.why_not else one.slope_s for one in report.fits}
    times = [one for one in report.times if one.windows]
    broken = ((one, findings.broken_table(one, slopes.get(one.label))) for one in report.sent)
    prefixes = (findings.prefix_table(one) for one in report.sent)
    stages = (findings.stage_table(one) for one in report.facts)
    return {
        "time_charts": [
            _both(lambda width, t=one: time_chart(t, width), _wide(times), one.label)
            for one in times
        ],
        "time_tables": [findings.time_table(one) for one in times],
        "fits": [_fit(one, report) for one in report.fits],
        "audits": [{"sent": one, "table": table} for one, table in broken],
        "prefix_tables": [table for table in prefixes if table],
        "diversity": findings.diversity_table(report.sent),
        "objective_tables": [findings.objectives_table(one) for one in report.objectives],
        "goodputs": [words for one in report.facts if (words := findings.goodput_words(one))],
        "stage_tables": [table for table in stages if table],
        "load": tables.load_table(report.facts),
        "gaps": findings.gap_table(report.facts),
    }


def _fit(found: Fit, report: Report) -> dict[str, Any]:
    wide = _wide(report.fits)
    return {
        "found": found,
        "chart": _both(lambda width: fit_chart(found, width), wide) if found.points else None,
        "table": findings.fit_table(found),
        "answer": tables.fit_answer(found),
        "basis": tables.fit_basis(found),
    }


def _wide(every: Sequence[object]) -> float:
    """A chart alone has the whole width, two stand side by side."""
    return HALF if len(every) > 1 else WIDE


def _both(draw: Any, width: float, label: str = "") -> dict[str, Any]:
    return {"wide": draw(width), "narrow": draw(NARROW), "label": label}


def _wait_charts(report: Report) -> list[dict[str, Any]]:
    span = time_span(report.waits)
    if span is None:
        return []
    return [
        _both(
            lambda width, w=waits: wait_chart(w, width, 240, span), _wide(report.waits), waits.label
        )
        for waits in report.waits
    ]


def _figures(report: Report) -> list[dict[str, str]]:
    """The figures under the headline, four at most: those that are known."""
    staging = report.sides[0]
    figures = [
        _figure(staging.hit_rate, "hit rate in staging"),
        _figure(staging.replay, "of staging's prompt tokens were replays", _alarm(staging.replay)),
    ]
    for side in report.sides[1:]:
        what = "of the production-like run" if side.measured else "to expect in production"
        figures.append(_figure(side.hit_rate, f"hit rate {what}"))
    if len(figures) < 4:
        figures.append(_figure(staging.organic_hit_rate, "organic: new prompts only, in staging"))
    return [figure for figure in figures if figure["value"] != UNKNOWN]


def _alarm(replay: float | None) -> str:
    """The colour of replay, unless there are none to one decimal."""
    return "replay" if replay is not None and replay >= 0.0005 else ""


def _figure(rate: float | None, name: str, style: str = "") -> dict[str, str]:
    return {"value": percent(rate), "name": name, "style": style}


def _setting(report: Report) -> str:
    run = report.facts[0].run
    size, blocks = run["block_size"], run["capacity_blocks"]
    if size is None:
        return ""
    cache_words = "" if blocks is None else f", a cache of {blocks * size:,} tokens"
    return f", blocks of {size} tokens{cache_words}"


def _errors(one: Facts) -> Iterator[str]:
    """How often what failed; not the error's text, which may quote a prompt."""
    for error in one.run.get("errors", []):
        status = "" if error["status"] is None else f" {error['status']}"
        what = error["outcome"].replace("_", " ")
        yield f"{one.label}: {error['requests']:,} requests ended with {what}{status} (see run.json)"


def _notes(report: Report) -> list[str]:
    notes = [words for one in report.facts for words in _errors(one)]
    notes += [f"{one.label}: {note}" for one in report.facts for note in one.run.get("notes", [])]
    notes += [f"Forecast: {note}" for note in (report.expected or {}).get("warnings", [])]
    return notes + [f"Gate: {note}" for note in (report.gate or {}).get("notes", [])]


def _setting_rows(report: Report) -> list[tuple[str, str]]:
    rows = []
    for one in report.facts:
        run, endpoint = one.run, one.run["endpoint"]
        tokenizer = run["tokenizer"]["fingerprint"] if run["tokenizer"] else "none"
        name = run["profile"].get("name", "") if isinstance(run["profile"], dict) else ""
        rows.append((
            one.label,
            f"profile {name}, seed {run['seed']}, model {endpoint['model']} at {endpoint['url']},"
            f" tokenizer {tokenizer}, block size {run['block_size']}, capacity"
            f" {run['capacity_blocks']} blocks, load processes {run['processes']}; split by:"
            f" {run['split']['source'] or 'nobody'}",
        ))  # fmt: skip
    versions = report.facts[0].run["versions"]
    rows.append(("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    if report.expected:
        scenario = report.expected.get("scenario") or {}
        known = {
            key.replace("_", " "): value for key, value in scenario.items() if value is not None
        }
        words = ", ".join(f"{name} {value}" for name, value in known.items())
        rows.append(("Forecast", f"{report.expected.get('status')}; {words}"))
    if (report.gate or {}).get("thresholds_from"):
        rows.append(("Gate", f"thresholds of {(report.gate or {})['thresholds_from']}"))
    return rows
