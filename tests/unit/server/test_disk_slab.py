"""The disk tier's file: what was written comes back, whatever else happened to it is a miss."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from engine_builders import DictSlab, make_engine, run

from loadkit.core.errors import InputError
from reference_server.node import DISK, HOST, Node
from reference_server.tiers.disk import HEADER_BYTES, DiskSlab
from reference_server.tiers.lower import LowerTiers, Tier
from reference_server.tiers.secret import lasting_secret

BLOCK, PAYLOAD = 4, 40


def make_slab(path: Path, num_slots: int = 5, fingerprint: bytes = b"f" * 32) -> DiskSlab:
    return DiskSlab(path, num_slots, BLOCK, PAYLOAD, fingerprint, bytes, bytes)


def node(number: int, slot: int = 0) -> Node:
    name = bytes([number]) * 16
    return Node(name, None, b"p" * 16, (number,) * BLOCK, slot, tier=DISK)


def payload(number: int) -> bytes:
    return bytes([number]) * PAYLOAD


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "slab"


def test_what_is_put_is_got_and_nothing_else(path: Path) -> None:
    slab = make_slab(path)
    for number in (1, 2):
        assert slab.put(number, node(number), payload(number))
    assert [slab.get(n, node(n)) for n in (1, 2)] == [payload(1), payload(2)]
    assert slab.get(1, node(2)) is None  # another block's record
    assert slab.get(3, node(3)) is None  # never written
    slab.close()


def test_the_next_process_finds_the_blocks_oldest_first(path: Path) -> None:
    slab = make_slab(path)
    for number, slot in ((1, 3), (2, 0), (3, 2)):
        slab.put(slot, node(number), payload(number))
    slab.put(3, node(4), payload(4))  # block 1's slot again
    slab.close()
    slab = make_slab(path)
    found = slab.found()
    assert [(n.hash, n.place, n.tokens) for n in found] == [
        (bytes([number]) * 16, slot, (number,) * BLOCK) for number, slot in ((2, 0), (3, 2), (4, 3))
    ]
    assert slab.get(2, found[1]) == payload(3)
    slab.close()


@pytest.mark.parametrize("where", ["checksum", "hash", "tokens", "payload"])
def test_a_flipped_bit_anywhere_is_a_miss(path: Path, where: str) -> None:
    slab = make_slab(path)
    slab.put(1, node(1), payload(1))
    at = {"checksum": 0, "hash": 15, "tokens": 50, "payload": slab.record_bytes - 1}[where]
    with path.open("r+b") as file:
        file.seek(HEADER_BYTES + slab.record_bytes + at)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    assert slab.get(1, node(1)) is None
    slab.close()


def test_a_file_cut_short_under_a_running_server_is_a_miss(path: Path) -> None:
    slab = make_slab(path)
    slab.put(1, node(1), payload(1))
    os.truncate(path, HEADER_BYTES + slab.record_bytes + 10)
    assert slab.get(1, node(1)) is None
    assert slab.put(1, node(1), payload(1))
    assert slab.get(1, node(1)) == payload(1)
    slab.close()


def test_another_models_file_is_begun_anew(path: Path) -> None:
    slab = make_slab(path)
    slab.put(1, node(1), payload(1))
    slab.close()
    other = make_slab(path, fingerprint=b"g" * 32)
    assert other.found() == []
    assert other.get(1, node(1)) is None
    other.close()


def test_a_full_disk_is_a_block_not_stored_and_said_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    slab = make_slab(path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        assert [slab.put(n, node(n), payload(n)) for n in (1, 2)] == [False, False]
    assert capsys.readouterr().err.count("No space left") == 1
    slab.close()


def test_a_short_write_is_a_block_not_stored(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slab = make_slab(path)
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda f, data, at: write(f, data[:-1], at))
    assert not slab.put(1, node(1), payload(1))
    assert slab.get(1, node(1)) is None
    slab.close()


def test_a_file_that_cannot_be_made_is_said_before_anything_is_served(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no disk tier"):
        make_slab(tmp_path)
    with pytest.raises(InputError, match="no disk tier"):
        make_slab(tmp_path / "slab", num_slots=1 << 50)


def test_two_servers_do_not_share_a_file(path: Path) -> None:
    slab = make_slab(path)
    with pytest.raises(InputError, match="another server"):
        make_slab(path)
    slab.close()


def test_what_was_prefetched_is_served_once_and_only_if_whole(path: Path) -> None:
    slab = make_slab(path)
    slab.put(1, node(1), payload(1))
    slab.prefetch(1, node(1))
    slab.prefetch(2, node(2))
    slab._reader.shutdown(wait=True)
    assert list(slab._prefetched) == [node(1).hash]
    os.truncate(path, 0)
    assert slab.get(1, node(1)) == payload(1)
    assert slab.get(1, node(1)) is None
    slab.close()


def encode(payload: dict[int, int]) -> bytes:
    return b"".join(payload[at].to_bytes(8, "little") for at in range(BLOCK)) + bytes(8)


def decode(data: bytes) -> dict[int, int]:
    return {at: int.from_bytes(data[8 * at : 8 * at + 8], "little") for at in range(BLOCK)}


def test_an_engine_started_again_hits_what_the_last_one_left_on_disk(path: Path) -> None:
    """Device of 4 blocks of 4: the second prompt sends the first to disk, where it stays."""
    prompts = [[n] * 13 for n in range(2)]
    hits = []
    for _ in range(2):
        slab = DiskSlab(path, 9, BLOCK, PAYLOAD, b"f" * 32, encode, decode)
        engine = make_engine(4, lower=LowerTiers([Tier(DISK, slab, 8)]))
        hits.append(run(engine, prompts[0]).tier_tokens)
        run(engine, prompts[1])
        slab.close()
    assert hits == [(0, 0, 0), (0, 0, 12)]


def test_an_engine_that_is_stopped_leaves_everything_on_disk_most_recent_last(path: Path) -> None:
    """Device 8, host 4, disk 9 blocks of 4: of three prompts of 3 blocks and a dead page, the last
    two, and one block and the page of the first, find room."""
    prompts = [[n] * 13 for n in range(3)]
    slab = DiskSlab(path, 10, BLOCK, PAYLOAD, b"f" * 32, encode, decode)
    host = Tier(HOST, DictSlab(5), 4)
    engine = make_engine(8, lower=LowerTiers([host, Tier(DISK, slab, 9)]))
    for prompt in prompts:
        run(engine, prompt)
    engine.start()
    engine.stop()
    assert engine.error is None
    slab.close()
    slab = DiskSlab(path, 10, BLOCK, PAYLOAD, b"f" * 32, encode, decode)
    engine = make_engine(8, lower=LowerTiers([Tier(DISK, slab, 9)]))
    hits = [run(engine, prompt).tier_tokens[2] for prompt in (prompts[2], prompts[1], prompts[0])]
    slab.close()
    assert hits == [12, 12, 4]


def test_the_secret_lasts_and_is_its_owners_alone(tmp_path: Path) -> None:
    made = lasting_secret(tmp_path / "new" / "slab")
    assert made == lasting_secret(tmp_path / "new" / "slab")
    assert made != lasting_secret(tmp_path / "other")
    assert (tmp_path / "new" / "slab.secret").stat().st_mode & 0o777 == 0o600
    (tmp_path / "other.secret").write_bytes(b"short")
    with pytest.raises(InputError, match="not whole"):
        lasting_secret(tmp_path / "other")
