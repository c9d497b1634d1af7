"""Runs side by side: differences by hand, settings by name, hostile text."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import Call
from report_builders import HOSTILE, Example

from loadkit.core.errors import InputError
from loadkit.report.compare import beyond, compare_runs, setting_table


def changed(example: Example, at: Path, **changes: Any) -> Path:
    shutil.copytree(example.production, at)
    run = json.loads((at / "run.json").read_text())
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = run
        for name in parents:
            node = node[name]
        node[last] = value
    (at / "run.json").write_text(json.dumps(run))
    return at


def test_a_run_equals_itself_with_nothing_beyond_chance(example: Example, tmp_path: Path) -> None:
    found = compare_runs([example.production, changed(example, tmp_path / "again")])
    [one] = found.differences
    assert one.settings == ()
    assert not any(beyond(change) for change in one.changes)
    assert {change.value for change in one.changes} == {0.0, 1.0}
    assert all(change.paired for change in one.changes)
    assert found.warnings == ()


def test_what_differs_is_named_and_beyond_chance_where_it_is(example: Example) -> None:
    found = compare_runs([example.production, example.staging])
    [one] = found.differences
    rate = one.changes[0]
    sides = [side.hit_rate or 0 for side in found.sides]
    assert rate.value == pytest.approx(sides[1] - sides[0])
    assert beyond(rate)
    assert "compared as two draws" in found.warnings[0]


def test_settings_are_told_by_key_and_places_are_not(example: Example, tmp_path: Path) -> None:
    other = changed(
        example, tmp_path / "b", seed=2, block_size=32, profile__users=9,
        endpoint__url="http://elsewhere", status="invalid",
    )  # fmt: skip
    found = compare_runs([example.production, other])
    assert [(s.key, s.old, s.new) for s in found.differences[0].settings] == [
        ("block_size", "16", "32"), ("profile.users", "not set", "9"), ("seed", "1", "2"),
    ]  # fmt: skip
    assert "b is not valid: its figures say little" in found.warnings
    assert "b: hit rates of another block size or tokenizer do not compare" in found.warnings


def test_settings_that_one_run_alone_has_are_one_row_and_maps_are_words(
    example: Example, tmp_path: Path
) -> None:
    think = {"mean": 0.2, "max": None, "source": "a long story"}
    other = changed(example, tmp_path / "b", seed=2, profile__users=9, profile__think_s=think)
    [one] = compare_runs([example.production, other]).differences
    assert [(row.name, row.cells) for row in setting_table(one).rows] == [
        ("seed", ("1", "2")),
        ("only one of them has (--json lists them)", ("0", "2")),
    ]
    assert {setting.key: setting.new for setting in one.settings}["profile.think_s"] == "mean 0.2"


def test_one_folder_or_a_broken_one_is_refused(example: Example, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name two or more"):
        compare_runs([example.production])
    with pytest.raises(InputError, match=r"no run\.json here"):
        compare_runs([example.production, tmp_path])


def test_the_command_prints_tables_or_one_object(
    loadkit: Call, example: Example, tmp_path: Path
) -> None:
    hostile = changed(example, tmp_path / "x::error::y", profile__name=HOSTILE + "\n::error::z")
    done = loadkit("compare", example.production, hostile)
    assert done.code == 0
    assert "against production" in done.out
    assert not re.search("::error|[\x1b\u202e]", done.out)
    done = loadkit("compare", example.production, example.staging, "--json")
    assert json.loads(done.out)["schema"] == "loadkit.compare/1"
    assert loadkit("compare", example.production).code == 2
