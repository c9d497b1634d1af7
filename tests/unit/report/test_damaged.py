"""Damaged files: a hundred seeded mutations of a run, a forecast and a verdict, none a traceback."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_builders import Example

from loadkit.core.errors import InputError
from loadkit.gate import decide_folder
from loadkit.report import build, render, render_markdown
from loadkit.report.build import read_run
from loadkit.report.findings import stage_table
from loadkit.report.model import Facts
from loadkit.report.tables import load_table
from loadkit.report.words import UNKNOWN

GONE = object()
VALUES = (None, "x", -1, [], {}, 1e300, True, GONE)


def paths(node: Any, under: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node[:2])
    for key, value in items:
        yield (*under, key)
        if isinstance(value, dict | list):
            yield from paths(value, (*under, key))


def mutated(data: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    changed = copy.deepcopy(data)
    *parents, last = rng.choice(list(paths(data)))
    node: Any = changed
    for key in parents:
        node = node[key]
    value = rng.choice(VALUES)
    if value is GONE:
        del node[last]
    else:
        node[last] = value
    return changed


@pytest.mark.parametrize("which", ["run", "expected", "gate"])
def test_what_does_not_fit_is_named_and_never_a_traceback(
    example: Example, tmp_path: Path, which: str
) -> None:
    at = tmp_path / "run"
    shutil.copytree(example.staging, at)
    (at / "sent.jsonl.gz").unlink()
    files = {
        "run": json.loads((at / "run.json").read_text()),
        "expected": example.expected,
        "gate": example.gate,
    }
    rng, places = random.Random(which), list[str]()
    for _ in range(35):
        now = files | {which: mutated(files[which], rng)}
        (at / "run.json").write_text(json.dumps(now["run"]))
        try:
            gate = now["gate"] if which == "gate" else None
            gate = gate or decide_folder(at, now["expected"]).to_dict()
            report = build(at, expected=now["expected"], gate=gate)
            assert render(report)
            assert render_markdown(report)
        except InputError as error:
            places.append(str(error.where))
    assert len(places) > 3
    assert all(places)


HUGE = 10**400  # JSON may say it, no float holds it


def with_value(run: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """A copy with the value at a place like `a.0.b`."""
    changed = copy.deepcopy(run)
    *parents, last = place.split(".")
    node: Any = changed
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node[key]
    assert last in node
    node[last] = value
    return changed


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("append_only.turn_pairs", HUGE),
        ("append_only.kept", 2**50),
        ("append_only.causes.0.pairs", -1),
        ("append_only.causes.0.tokens_lost", HUGE),
        ("append_only.causes.0.lost_rate", 1.5),
        ("diversity.distinct_prompts", HUGE),
        ("diversity.distinct_share", -5),
        ("diversity.effective_prompts", 1e300),
        ("diversity.prompt_coverage", 2),
        ("diversity.near_replay.near_replays", -1),
        ("diversity.leaderboard.0.hit_share", -5),
        ("diversity.leaderboard.0.start_token", HUGE),
        ("curve.0.capacity_tokens", HUGE),
        ("reconciliation.prediction_from_text_tokens", -5),
        ("reconciliation.retokenised_tokens", HUGE),
        ("reconciliation.usage_vs_prometheus.unexplained_cached_tokens", -HUGE),
        ("reconciliation.usage_gap.matched", HUGE),
    ],
    ids=lambda each: str(each)[:40],
)
def test_a_figure_that_cannot_be_is_refused(
    example: Example, tmp_path: Path, place: str, value: Any
) -> None:
    run = json.loads((example.staging / "run.json").read_text())
    lost = {"title": "a clock", "remedy": "put it last", "pairs": 1, "tokens_lost": 9,
            "lost_rate": 0.1, "example": {"before": None, "after": None}}  # fmt: skip
    run["append_only"]["causes"] = [lost]
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run))
    assert read_run(tmp_path) == run
    path.write_text(json.dumps(with_value(run, place, value)))
    with pytest.raises(InputError, match=place.split(".")[0]):
        read_run(tmp_path)


@pytest.mark.parametrize("value", [HUGE, -HUGE, -5], ids=lambda each: str(each)[:5])
def test_what_is_shown_only_where_it_fits_is_left_out_where_it_cannot_be(value: int) -> None:
    one = Facts("Staging", {"stages": [{"start_s": 0, "end_s": 5, "goodput_share": value}]})
    table = stage_table(one)
    assert table is not None
    assert [row.cells for row in table.rows] == [(UNKNOWN,)]
    delay = {"schedule_delay_s": {"p50": None, "p99": None}, "processes": 1}
    for odd in (
        {"loop_stalls": {"count": value, "longest_s": 0.1}},
        {"loop_stalls": {"count": 1, "longest_s": value}},
        {"client": {"workers": [{"cpu_share": value}]}},
    ):
        assert load_table([Facts("Staging", delay | odd)]) == load_table([Facts("Staging", delay)])
