"""A journal on its way to the master: every byte once, however often its chunks and answers come."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, cast

import pytest
from test_wire import CONTEXT, SETTINGS

from loadkit.locust_users import shipping, wire
from loadkit.locust_users.settings import WorkerStatus, WorkFolder
from loadkit.locust_users.shipping import Shipper, append_at, take_chunk
from loadkit.locust_users.worker import LoadWorker
from loadkit.runs.journal import JournalWriter, read_journal
from loadkit.runs.record import Record


def work_folder(path: Path) -> WorkFolder:
    path.mkdir()
    work = WorkFolder(path)
    work.create(SETTINGS)
    return work


class Working:
    """Stands for a LoadWorker that journals a record when told to."""

    def __init__(self, work: WorkFolder):
        self.work, self.worker, self.is_finished, self.num = work, 0, False, 0
        self.journal = JournalWriter(work.journal(0))

    def add(self) -> None:
        self.num += 1
        self.journal.append(
            Record(session=f"s{self.num}", turn=0, name="n", worker=0, outcome="ok", intended_s=0.0)
        )

    def status(self) -> WorkerStatus:
        return WorkerStatus(worker=0, done=self.num, finished=self.is_finished)


@pytest.mark.parametrize("seed", range(8))
def test_records_arrive_once_and_in_order_over_a_bad_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Chunks and acknowledgements are lost, doubled and delayed at random."""
    rng = random.Random(seed)
    monkeypatch.setattr(shipping, "CHUNK_BYTES", 100)
    monkeypatch.setattr(shipping, "RESEND_S", 0.0)
    working, theirs = Working(work_folder(tmp_path / "w")), work_folder(tmp_path / "m")
    line: list[Any] = []
    share = wire.Share("", 0, SETTINGS, CONTEXT, ())
    shipper = Shipper(share, cast(LoadWorker, working), lambda _, chunk: line.append(chunk))
    is_done = False
    for step in range(4000):
        if step < 400 and rng.random() < 0.1:
            working.add()
        working.is_finished = step >= 400
        shipper.ship()
        if line and rng.random() < 0.7:
            chunk = line.pop(rng.randrange(len(line)))
            if rng.random() < 0.2:
                line.append(chunk)
            ack = take_chunk(theirs, 0, chunk, is_done=is_done)
            is_done = ack.closed
            if rng.random() < 0.8:
                shipper.on_ack(ack)
        del line[:-5]
        if shipper.closed.is_set():
            break
    working.journal.close()
    assert shipper.closed.is_set()
    arrived = read_journal(theirs.journal(0))
    assert arrived.torn_bytes == 0
    assert [record.session for record in arrived.records] == [
        f"s{number}" for number in range(1, working.num + 1)
    ]


def test_a_chunk_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    work = work_folder(tmp_path / "m")
    assert append_at(work, 0, 0, b"abc") == 3
    for offset in (0, 2, 4):
        assert append_at(work, 0, offset, b"xyz") == 3
    assert append_at(work, 0, 3, b"de") == 5
    assert work.journal(0).read_bytes() == b"abcde"


def test_a_chunk_that_comes_after_the_last_one_leaves_the_worker_done(tmp_path: Path) -> None:
    """Else the master would wait for a worker that has said all and gone."""
    work = work_folder(tmp_path / "m")
    status = WorkerStatus(worker=0, done=1, finished=True)
    last = take_chunk(work, 0, wire.Chunk("", 0, b"all", status, True), is_done=False)
    late = take_chunk(work, 0, wire.Chunk("", 0, b"al", status, False), is_done=last.closed)
    assert last == late == wire.Ack("", 3, True)
    assert [one.finished for one in work.statuses()] == [True]
