"""Blocks in one file of fixed slots that outlives the process.

    header   magic, fingerprint of model, dtype and layout, bytes of a record, number of slots
    record   crc32, sequence number, hash, parent's hash, number of tokens, token ids, K/V

A record counts only if its checksum and both hashes are right, so a torn, short or damaged one is
recomputed and never served. The file is allocated whole at the start, so that a full disk is found
then, and read and written at positions rather than mapped: a mapping that somebody cuts short ends
the process, a short read is a miss.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from loadkit.core.errors import InputError
from reference_server.node import DISK, Node

MAGIC = b"loadkit kv slab1"
HEADER = struct.Struct("<16s32sQQ")
HEADER_BYTES = 4096
CHECKSUM = struct.Struct("<I")
RECORD = struct.Struct("<Q16s16sI")
MAX_PREFETCHED = 256
NO_HASH = bytes(16)


class DiskSlab:
    """`num_slots` records of `payload_bytes` K/V; `to_bytes` and `from_bytes` convert a payload.

    InputError if the file cannot be made, is too small a disk's, or belongs to a running server.
    A file of another fingerprint or size is begun anew.
    """

    def __init__(
        self,
        path: Path,
        num_slots: int,
        block_size: int,
        payload_bytes: int,
        fingerprint: bytes,
        to_bytes: Callable[[Any], bytes],
        from_bytes: Callable[[bytes], Any],
    ):
        self.path, self.num_slots, self.block_size = path, num_slots, block_size
        self._to_bytes, self._from_bytes = to_bytes, from_bytes
        self._tokens = struct.Struct(f"<{block_size}i")
        self._meta_bytes = CHECKSUM.size + RECORD.size + self._tokens.size
        self.record_bytes = self._meta_bytes + payload_bytes
        self._header = HEADER.pack(MAGIC, fingerprint, self.record_bytes, num_slots)
        self._file = self._open()
        self._sequence = 0
        self._prefetched: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._reader = ThreadPoolExecutor(1, "prefetch")
        self._complained = False

    def _open(self) -> int:
        total = HEADER_BYTES + self.num_slots * self.record_bytes
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.pread(file, HEADER.size, 0) != self._header:
                    os.ftruncate(file, 0)
                os.posix_fallocate(file, 0, total)
                os.pwrite(file, self._header, 0)
            except OSError:
                os.close(file)
                raise
            return file
        except BlockingIOError as error:
            raise InputError("another server uses this file", where=self.path) from error
        except OSError as error:
            raise InputError(
                f"no disk tier of {total >> 20} MiB here: {error.strerror}", where=self.path
            ) from error

    def close(self) -> None:
        self._reader.shutdown(cancel_futures=True)
        os.close(self._file)

    # -- tiers.base.Slab

    def put(self, slot: int, node: Node, payload: Any) -> bool:
        """An unfinished page takes its place, but nobody will ask for its content."""
        if node.hash is None:
            return True
        self._sequence += 1
        record = RECORD.pack(self._sequence, node.hash, node.parent_hash, len(node.tokens))
        record += self._tokens.pack(*node.tokens) + self._to_bytes(payload)
        record = CHECKSUM.pack(zlib.crc32(record)) + record
        try:
            written = os.pwrite(self._file, record, self._place(slot))
        except OSError as error:
            self._complain(error)
            return False
        return written == len(record)

    def get(self, slot: int, node: Node) -> Any | None:
        with self._lock:
            data = self._prefetched.pop(node.hash or NO_HASH, None)
        data = data if data is not None else self._read(slot, node)
        return None if data is None else self._from_bytes(data)

    def prefetch(self, slot: int, node: Node) -> None:
        with self._lock:
            known = node.hash is None or node.hash in self._prefetched
        if not known:
            self._reader.submit(self._prefetch, slot, node)

    def _prefetch(self, slot: int, node: Node) -> None:
        data = self._read(slot, node)
        if data is not None and node.hash is not None:
            with self._lock:
                self._prefetched[node.hash] = data
                if len(self._prefetched) > MAX_PREFETCHED:
                    self._prefetched.popitem(last=False)

    def _read(self, slot: int, node: Node) -> bytes | None:
        """The K/V, if the record is whole and is this block's."""
        try:
            record = os.pread(self._file, self.record_bytes, self._place(slot))
        except OSError as error:
            self._complain(error)
            return None
        if len(record) != self.record_bytes:
            return None
        if CHECKSUM.unpack_from(record)[0] != zlib.crc32(memoryview(record)[CHECKSUM.size :]):
            return None
        _, block_hash, parent_hash, _ = RECORD.unpack_from(record, CHECKSUM.size)
        right = (block_hash, parent_hash) == (node.hash, node.parent_hash)
        return record[self._meta_bytes :] if right else None

    # -- after a restart

    def found(self) -> list[Node]:
        """The blocks of an earlier process, oldest first; whether they are whole is seen when they
        are read. At most one a hash, and one slot is left free."""
        newest: dict[bytes, tuple[int, Node]] = {}
        for sequence, node in self._records():
            assert node.hash is not None
            if node.hash not in newest or newest[node.hash][0] < sequence:
                newest[node.hash] = (sequence, node)
        by_age = sorted(newest.values(), key=lambda pair: pair[0])
        self._sequence = by_age[-1][0] if by_age else 0
        return [node for _, node in by_age][-(self.num_slots - 1) :]

    def _records(self) -> Iterator[tuple[int, Node]]:
        for slot in range(self.num_slots):
            meta = os.pread(self._file, self._meta_bytes, self._place(slot))
            if len(meta) < self._meta_bytes:
                return
            sequence, block_hash, parent_hash, num = RECORD.unpack_from(meta, CHECKSUM.size)
            if block_hash == NO_HASH or num != self.block_size:
                continue
            tokens = self._tokens.unpack_from(meta, CHECKSUM.size + RECORD.size)
            yield sequence, Node(block_hash, None, parent_hash, tokens, slot, tier=DISK)

    def _place(self, slot: int) -> int:
        return HEADER_BYTES + slot * self.record_bytes

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            print(f"loadkit serve: disk tier: {error}: {self.path}", file=sys.stderr)
        self._complained = True
