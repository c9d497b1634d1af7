"""Journals: whole entries survive, torn tails are counted."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from loadkit.runs.journal import JournalWriter, read_journal
from loadkit.runs.record import Record


def record(turn: int) -> Record:
    return Record(
        session="s1",
        turn=turn,
        name="chat",
        worker=0,
        outcome="ok",
        intended_s=0.5 * turn,
        sent_s=0.5 * turn + 0.001,
        gaps_s=[0.01, 0.02],
        prompt_tokens=10,
        cached_tokens=0,
        messages=[{"role": "user", "content": f"question {turn} \x00 é"}],
        reply="answer",
    )


def write(path: Path, count: int) -> list[int]:
    """Write `count` records; return the file's size after each."""
    sizes = []
    with JournalWriter(path) as journal:
        for turn in range(count):
            journal.append(record(turn))
            sizes.append(path.stat().st_size)
    return sizes


def test_a_journal_gives_back_what_was_appended(tmp_path: Path) -> None:
    write(tmp_path / "j", 3)
    journal = read_journal(tmp_path / "j")
    assert journal.records == [record(0), record(1), record(2)]
    assert journal.torn_bytes == 0


def test_reported_zero_and_not_reported_stay_different(tmp_path: Path) -> None:
    write(tmp_path / "j", 1)
    kept = read_journal(tmp_path / "j").records[0]
    assert kept.cached_tokens == 0
    assert kept.output_tokens is None


def test_an_empty_journal_has_no_records(tmp_path: Path) -> None:
    write(tmp_path / "j", 0)
    assert read_journal(tmp_path / "j").records == []


def test_a_cut_at_any_byte_loses_only_the_entry_it_falls_in(tmp_path: Path) -> None:
    sizes = write(tmp_path / "j", 3)
    whole = (tmp_path / "j").read_bytes()
    for cut in range(len(whole) + 1):
        (tmp_path / "cut").write_bytes(whole[:cut])
        journal = read_journal(tmp_path / "cut")
        kept = sum(size <= cut for size in sizes)
        assert journal.records == [record(turn) for turn in range(kept)], f"cut at {cut}"
        assert journal.torn_bytes == cut - ([0, *sizes][kept]), f"cut at {cut}"


def test_a_damaged_byte_costs_the_entry_that_it_is_in_and_no_other(tmp_path: Path) -> None:
    sizes = write(tmp_path / "j", 3)
    whole = (tmp_path / "j").read_bytes()
    for position in range(sizes[0], sizes[1]):
        damaged = bytearray(whole)
        damaged[position] ^= 0x40
        (tmp_path / "damaged").write_bytes(damaged)
        journal = read_journal(tmp_path / "damaged")
        assert journal.records == [record(0), record(2)], f"byte {position}"
        assert journal.torn_bytes == sizes[1] - sizes[0]


def test_a_file_of_zeros_or_noise_has_no_records(tmp_path: Path) -> None:
    for noise in (bytes(64), b"\xff" * 64, b"GET / HTTP/1.1\r\n"):
        (tmp_path / "noise").write_bytes(noise)
        journal = read_journal(tmp_path / "noise")
        assert (journal.records, journal.torn_bytes) == ([], len(noise))


def test_writing_continues_an_existing_journal(tmp_path: Path) -> None:
    write(tmp_path / "j", 1)
    write(tmp_path / "j", 2)
    assert [r.turn for r in read_journal(tmp_path / "j").records] == [0, 0, 1]


def test_a_short_write_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, bytes(data[:7])))
    write(tmp_path / "j", 2)
    monkeypatch.undo()
    assert read_journal(tmp_path / "j").records == [record(0), record(1)]


def test_a_full_disk_is_an_oserror_and_earlier_records_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = JournalWriter(tmp_path / "j")
    journal.append(record(0))
    real_write = os.write
    calls = iter([lambda fd, data: real_write(fd, bytes(data[:9])), _no_space])
    monkeypatch.setattr(os, "write", lambda fd, data: next(calls)(fd, data))
    with pytest.raises(OSError, match="No space"):
        journal.append(record(1))
    monkeypatch.undo()
    journal.close()
    assert read_journal(tmp_path / "j").records == [record(0)]
    assert read_journal(tmp_path / "j").torn_bytes == 9


@pytest.mark.parametrize(
    ("foreign", "says"),
    [
        ({"reply_token_ids": [1, 1 << 64]}, "ints"),
        ({"cached_tokens": 1 << 70}, "ints"),
        ({"reply": "half \ud83d"}, "surrogates"),
        ({"messages": [{"role": "user", "content": object()}]}, "object"),
    ],
)
def test_what_cannot_be_written_leaves_a_labelled_record(
    tmp_path: Path, foreign: dict[str, object], says: str
) -> None:
    with JournalWriter(tmp_path / "j") as journal:
        kept = journal.append(msgspec.structs.replace(record(0), **foreign))
        assert journal.append(record(1)) == record(1)
    assert read_journal(tmp_path / "j").records == [kept, record(1)]
    assert (kept.outcome, kept.session, kept.turn, kept.sent_s) == ("malformed", "s1", 0, 0.001)
    assert kept.error is not None
    assert kept.error.startswith("its record cannot be kept: ")
    assert says in kept.error
    assert (kept.reply, kept.messages, kept.cached_tokens) == ("", [], None)


def test_what_is_nested_too_deep_leaves_a_labelled_record(tmp_path: Path) -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    unwritable = msgspec.structs.replace(record(0), messages=[{"x": deep}])
    with JournalWriter(tmp_path / "j") as journal:
        assert journal.append(unwritable).outcome == "malformed"


def _no_space(fd: int, data: object) -> int:
    raise OSError(28, "No space left on device")


def test_only_the_owner_may_read_a_journal(tmp_path: Path) -> None:
    write(tmp_path / "j", 1)
    assert stat.S_IMODE((tmp_path / "j").stat().st_mode) == 0o600


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    journal = JournalWriter(tmp_path / "j")
    journal.close()
    journal.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from loadkit.runs.journal import JournalWriter
from loadkit.runs.record import Record
journal = JournalWriter(Path(sys.argv[1]))
for turn in range(int(sys.argv[2])):
    journal.append(Record(session="s", turn=turn, name="n", worker=0, outcome="ok", intended_s=0.0))
    print(turn, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_keeps_every_record_it_acknowledged(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "j"), "50"], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL
    acknowledged = [int(line) for line in done.stdout.split()]
    journal = read_journal(tmp_path / "j")
    assert [r.turn for r in journal.records] == acknowledged == list(range(50))
    assert journal.torn_bytes == 0


LIMITED = """
import resource, signal, sys
from pathlib import Path
from run_builders import answered
from loadkit.runs.journal import JournalWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
written = 0
try:
    with JournalWriter(Path(sys.argv[1])) as journal:
        for turn in range(1000):
            journal.append(answered("a", turn, 0.0))
            written += 1
except OSError:
    print(written)
"""


def test_a_file_that_may_not_grow_keeps_every_record_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.journal"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    journal = read_journal(path)
    assert 0 < int(done.stdout) == len(journal.records) < 1000
    assert journal.torn_bytes == 5000 - sum(
        8 + len(msgspec.msgpack.encode(record)) for record in journal.records
    )
