"""Runs side by side, `loadkit.compare/1`: what changed in them, and in how they were made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadkit.core.errors import InputError
from loadkit.gate.baseline import Change, Run, changes, differing, open_run
from loadkit.gate.policy import policy_of
from loadkit.report.build import measured_side, read_run
from loadkit.report.model import Side
from loadkit.report.tables import Row, Table
from loadkit.report.words import UNKNOWN, milliseconds, percent

SCHEMA = "loadkit.compare/1"
# What of run.json is a setting; everything else is a result, or the moment it was made.
_SETTINGS = (
    *("profile", "seed", "versions", "endpoint", "tokenizer", "block_size", "capacity_blocks"),
    *("processes", "loop", "kind", "cache"),
)
# Where the endpoint listens and where a tokenizer lies say nothing about what was measured.
_ASIDE = ("endpoint.url", "tokenizer.name")
_PROSE = ("source", ".summary")
_MAX_VALUE_CHARS = 60
UNSET = "not set"


class Setting(msgspec.Struct, frozen=True):
    """A dotted key of run.json and its values, as text; UNSET where it is missing."""

    key: str
    new: str
    old: str


class Difference(msgspec.Struct, frozen=True):
    """One run against the first. changes: see `Change`; settings: those that differ."""

    run: str
    against: str
    changes: tuple[Change, ...]
    settings: tuple[Setting, ...]


class Comparison(msgspec.Struct, frozen=True):
    """All runs as the report shows them, and each against the first. warnings: what makes a
    comparison say less than it seems to."""

    sides: tuple[Side, ...]
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **msgspec.to_builtins(self)}


def compare_runs(folders: Sequence[Path]) -> Comparison:
    """Compare run folders with the first one. InputError for fewer than two, or one that is none."""
    if len(folders) < 2:
        raise InputError("one run folder alone", where="DIR", remedy="name two or more")
    for folder in folders:
        read_run(folder)
    runs = [open_run(folder) for folder in folders]
    names = _names(folders)
    sides = [
        measured_side(name, run.data, run.requests, policy_of(run.data))
        for name, run in zip(names, runs, strict=True)
    ]
    differences = [
        Difference(name, names[0], changes(run, runs[0], 0.95), tuple(_settings(run, runs[0])))
        for name, run in zip(names[1:], runs[1:], strict=True)
    ]
    return Comparison(tuple(sides), tuple(differences), tuple(_warnings(names, runs, differences)))


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names where they tell them apart, else their paths."""
    short = [folder.name for folder in folders]
    if len(set(short)) == len(short) and all(short):
        return short
    return [str(folder) for folder in folders]


def _settings(new: Run, old: Run) -> list[Setting]:
    ours, theirs = ({key: run.data.get(key) for key in _SETTINGS} for run in (new, old))
    return [
        Setting(key, _value(ours, key), _value(theirs, key))
        for key in differing(ours, theirs)
        if key not in _ASIDE and not key.endswith(_PROSE)
    ]


def _value(data: Any, key: str) -> str:
    for name in key.split("."):
        data = data.get(name) if isinstance(data, dict) else None
    if isinstance(data, dict):
        data = ", ".join(f"{k} {v}" for k, v in data.items() if v is not None and k not in _PROSE)
    text = UNSET if data is None else str(data)
    return text if len(text) <= _MAX_VALUE_CHARS else text[: _MAX_VALUE_CHARS - 1] + "…"


def _warnings(
    names: Sequence[str], runs: Sequence[Run], differences: Sequence[Difference]
) -> list[str]:
    found = [
        f"{name} is not valid: its figures say little"
        for name, run in zip(names, runs, strict=True)
        if run.measured.status != "ok"
    ]
    for one in differences:
        keys = {setting.key for setting in one.settings}
        if keys & {"block_size", "tokenizer.fingerprint"}:
            found.append(f"{one.run}: hit rates of another block size or tokenizer do not compare")
        if not all(change.paired for change in one.changes):
            found.append(f"{one.run}: other sessions than {one.against}'s, compared as two draws")
    return found


_NAMES = {
    "hit_rate": "hit rate",
    "organic_hit_rate": "organic hit rate",
    "failed_share": "requests without an answer",
    "ttft_s": "TTFT, geometric mean",
    "tpot_s": "TPOT, geometric mean",
    "e2e_s": "end to end, geometric mean",
}


def change_table(one: Difference) -> Table:
    """Each figure old, new, and the change with its interval; a star where it is beyond chance."""
    rows = []
    for change in one.changes:
        shown = milliseconds if change.is_ratio else percent
        cells = (shown(change.old), shown(change.new), _change(change), _span(change))
        rows.append(Row(_NAMES[change.figure], cells, style="total" if beyond(change) else None))
    return Table(
        f"{one.run} against {one.against}", ("before", "now", "change", "interval"), tuple(rows)
    )


def beyond(change: Change) -> bool:
    """Whether chance does not explain the change: no change at all lies outside its interval."""
    none = 1.0 if change.is_ratio else 0.0
    if change.interval is None:
        return False
    return not change.interval[0] <= none <= change.interval[1]


def _change(change: Change) -> str:
    if change.value is None:
        return UNKNOWN
    return _signed(change, change.value) + (" *" if beyond(change) else "")


def _signed(change: Change, value: float) -> str:
    return f"{100 * (value - 1):+.1f}%" if change.is_ratio else f"{100 * value:+.1f} points"


def _span(change: Change) -> str:
    if change.interval is None:
        return "–"
    return " to ".join(_signed(change, end) for end in change.interval)


def setting_table(one: Difference) -> Table:
    """Settings of both runs; how many only one has (another kind of traffic) is a row of its own."""
    both = [s for s in one.settings if UNSET not in (s.old, s.new)]
    rows = [Row(setting.key, (setting.old, setting.new)) for setting in both]
    old, new = (sum(getattr(s, which) != UNSET for s in one.settings) for which in ("old", "new"))
    if len(both) < len(one.settings):
        alone = (str(old - len(both)), str(new - len(both)))
        rows.append(Row("only one of them has (--json lists them)", alone))
    return Table("settings that differ", ("before", "now"), tuple(rows))
