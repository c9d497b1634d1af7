"""Runs whose launcher was killed: found, told apart from running ones, and made into run folders."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
from test_wire import CONTEXT, SETTINGS

from loadkit.core.errors import CannotMeasure, InputError
from loadkit.locust_users.recover import abandoned, recover
from loadkit.locust_users.settings import WorkerStatus, WorkFolder
from loadkit.runs.journal import Head, JournalWriter
from loadkit.runs.record import Record

NUM_REQUESTS = 12


def cut_off(
    parent: Path, done: int = 8, *, torn_bytes: int = 0, with_head: bool = True
) -> WorkFolder:
    """What a killed launcher leaves of a run of 12 requests, `done` of them journalled."""
    path = parent / ".out.work-abc"
    path.mkdir()
    work = WorkFolder(path)
    work.create(SETTINGS)
    work.write_context(msgspec.structs.replace(CONTEXT, scheduled=NUM_REQUESTS))
    head = Head(work.context(), work.begin(0.0)) if with_head else None
    with JournalWriter(work.journal(0), head) as journal:
        for number in range(done):
            journal.append(
                Record(
                    session=f"s{number}",
                    turn=0,
                    name="n",
                    worker=0,
                    outcome="ok",
                    intended_s=1.0 * number,
                    sent_s=1.0 * number,
                )
            )
    if torn_bytes:
        data = work.journal(0).read_bytes()
        work.journal(0).write_bytes(data[:-torn_bytes])
    work.write_status(WorkerStatus(worker=0, done=done, elapsed_s=9.0))
    return work


def test_a_run_folder_is_made_of_what_was_written(tmp_path: Path) -> None:
    work = cut_off(tmp_path)
    run = recover(work.path, tmp_path / "out")
    assert (run["requests"]["ok"], run["requests"]["not_sent"]) == (8, 4)
    assert run["duration_s"] == 9.0
    assert {reason["code"] for reason in run["reasons"]} == {"interrupted", "missing_workers"}
    assert any(note.startswith("recovered: ") for note in run["notes"])
    assert not work.path.exists()


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_any_byte_no_whole_record_is_lost_and_outcomes_add_up(
    tmp_path: Path, seed: int
) -> None:
    torn = random.Random(seed).randrange(1, 60)  # within the last record
    run = recover(cut_off(tmp_path, torn_bytes=torn).path, tmp_path / "out")
    counts = run["requests"]
    assert counts["ok"] == 7
    assert sum(n for name, n in counts.items() if name != "scheduled") == NUM_REQUESTS
    assert run["torn_bytes"] > 0
    assert run["duplicate_records"] == 0


def test_abandoned_runs_are_found_and_running_ones_are_not(tmp_path: Path) -> None:
    work = cut_off(tmp_path)
    (tmp_path / "out").mkdir()
    assert abandoned(tmp_path) == [work.path]
    held = WorkFolder(work.path)
    held.hold()
    assert work.is_held()
    assert abandoned(tmp_path) == []
    with pytest.raises(InputError, match="still going on"):
        recover(work.path, tmp_path / "new")
    assert work.path.exists()


def test_what_is_no_working_folder_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no working folder of a run"):
        recover(tmp_path, tmp_path / "new")
    work = cut_off(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text("{}")
    with pytest.raises(InputError, match="already exists"):
        recover(work.path, tmp_path / "out")


def test_a_run_that_never_began_cannot_be_measured(tmp_path: Path) -> None:
    work = cut_off(tmp_path, done=0)
    work.journal(0).unlink()
    with pytest.raises(CannotMeasure, match="before it sent anything"):
        recover(work.path, tmp_path / "new")
    assert work.path.exists()


@pytest.mark.parametrize("damage", ["removed", "emptied", "cut", "zeroed", "other JSON"])
def test_journals_alone_are_enough(tmp_path: Path, damage: str) -> None:
    """Context, start and status are conveniences: the journals say the same."""
    whole = recover(cut_off(tmp_path).path, tmp_path / "whole")
    work = cut_off(tmp_path)
    for path in (work.path / "context.json", work.path / "start.json", *_statuses(work)):
        data = path.read_bytes()
        if damage == "removed":
            path.unlink()
            continue
        path.write_bytes(
            {
                "emptied": b"",
                "cut": data[: len(data) // 2],
                "zeroed": bytes(len(data)),
                "other JSON": b'{"schema": 7}',
            }[damage]
        )
    run = recover(work.path, tmp_path / "out")
    assert run["requests"] == whole["requests"]
    assert (run["endpoint"], run["profile"]) == (whole["endpoint"], whole["profile"])
    assert run["duration_s"] == 7.0  # the last that was sent; the status had said 9
    assert run["started_unix_s"] == pytest.approx(whole["started_unix_s"], abs=60.0)


def _statuses(work: WorkFolder) -> list[Path]:
    return [*(work.path / "status").iterdir()]


def test_a_damaged_context_without_a_whole_head_names_the_file(tmp_path: Path) -> None:
    work = cut_off(tmp_path, with_head=False)
    (work.path / "context.json").write_bytes(b"{")
    with pytest.raises(InputError, match=r"context.json: cannot be read"):
        recover(work.path, tmp_path / "out")
    assert work.journal(0).exists()
