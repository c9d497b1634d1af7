"""A worker keeps a record before it counts, and does not go on when it cannot keep it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from loadkit.locust_users.settings import Settings, WorkFolder
from loadkit.locust_users.worker import EXIT_CANNOT_WRITE, LoadWorker
from loadkit.runs.journal import read_journal
from loadkit.runs.record import Record

SETTINGS = Settings(url="http://h", model="m", loop="open")


def record(turn: int) -> Record:
    return Record(session="s", turn=turn, name="n", worker=0, outcome="ok", intended_s=0.0)


def make_worker(work: WorkFolder, reported: list[int]) -> LoadWorker:
    def report(done: Record) -> None:
        journal = read_journal(work.journal(0)).records
        assert journal[-1] == done  # on disk before anybody hears of it
        reported.append(done.turn)

    return LoadWorker(work, SETTINGS, (), worker=0, start_at=0.0, report=report)


def test_a_record_is_in_the_journal_before_it_counts(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path)
    work.create(SETTINGS)
    reported: list[int] = []
    worker = make_worker(work, reported)
    for turn in range(3):
        worker.lane.emit(record(turn))
        assert work.statuses()[0].done <= len(read_journal(work.journal(0)).records)
    assert reported == [0, 1, 2]
    assert not work.statuses()[0].finished
    worker.finish()
    (status,) = work.statuses()
    assert (status.done, status.finished, status.mutations) == (3, True, 0)


def test_what_was_never_sent_is_recorded_but_not_done(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path)
    work.create(SETTINGS)
    reported: list[int] = []
    worker = make_worker(work, reported)
    worker.lane.emit(record(0))
    worker.lane.emit(msgspec.structs.replace(record(1), outcome="not_sent"))
    worker.finish()
    assert reported == [0, 1]
    assert work.statuses()[0].done == 1


def test_what_counts_is_the_record_that_was_kept(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path)
    work.create(SETTINGS)
    reported: list[int] = []
    worker = make_worker(work, reported)
    worker.lane.emit(msgspec.structs.replace(record(0), reply_token_ids=[1 << 70]))
    worker.finish()
    (kept,) = read_journal(work.journal(0)).records
    assert (kept.outcome, reported, work.statuses()[0].done) == ("malformed", [0], 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_ends_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Left(BaseException):
        pass

    def leave(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(os, "_exit", leave)
    work = WorkFolder(tmp_path)
    work.create(SETTINGS)
    work.journal(0).symlink_to("/dev/full")
    worker = make_worker(work, [])
    with pytest.raises(Left, match=str(EXIT_CANNOT_WRITE)):
        worker.lane.emit(record(0))
    assert worker.num_done == 0
    assert work.statuses() == []
    (note,) = work.notes()
    assert "load worker 0 cannot keep its records" in note
    assert f"{work.journal(0)}: No space left on device (ENOSPC) (free some space" in note
    worker.lane.client.close()
    worker._journal.close()
