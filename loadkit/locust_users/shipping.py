"""A worker's journal on its way to a master on another machine. No locust here.

One chunk is under way at a time, from the offset that the master has acknowledged, and the master
appends only what begins where its copy ends: lost, doubled and late messages change nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from gevent.event import Event
from msgspec import structs

from loadkit.locust_users import wire
from loadkit.locust_users.settings import WorkFolder
from loadkit.locust_users.worker import LoadWorker

CHUNK_BYTES = 256 << 10
SHIP_INTERVAL_S = 0.25
RESEND_S = 3.0
Send = Callable[[str, Any], None]


class Shipper:
    """Sends a worker's journal to the master, a chunk at a time, each until it is acknowledged."""

    def __init__(self, share: wire.Share, worker: LoadWorker, send: Send):
        self.share, self.worker, self._send = share, worker, send
        self.acked = 0
        self.closed = Event()
        self._awaited: tuple[int, float] | None = None  # end of the chunk under way, when sent

    def run(self) -> None:
        """A greenlet's life: until the master has everything and knows it."""
        while not self.closed.is_set():
            self.ship()
            self.closed.wait(SHIP_INTERVAL_S)

    def ship(self) -> None:
        """Send the next chunk, unless one is under way. A status goes along even without bytes."""
        now = time.monotonic()
        if self._awaited is not None and now - self._awaited[1] < RESEND_S:
            return
        status = self.worker.status()  # before reading: never ahead of what goes along
        data = self._read()
        done = status.finished and len(data) < CHUNK_BYTES
        chunk = wire.Chunk(self.share.part, self.acked, data, status, done)
        self._awaited = (self.acked + len(data), now)
        self._send(wire.JOURNAL, chunk)

    def on_ack(self, ack: wire.Ack) -> None:
        if ack.size >= self.acked:
            self.acked, self._awaited = ack.size, None
        if ack.closed:
            self.closed.set()

    def _read(self) -> bytes:
        with self.worker.work.journal(self.worker.worker).open("rb") as journal:
            journal.seek(self.acked)
            return journal.read(CHUNK_BYTES)


def take_chunk(work: WorkFolder, worker: int, chunk: wire.Chunk, *, is_done: bool) -> wire.Ack:
    """The master's side: append what is new, keep the status, and say what is on disk.

    is_done: all of the worker's journal had come before; what comes after that is no news.
    """
    size = append_at(work, worker, chunk.offset, chunk.data)
    if not is_done:
        is_done = chunk.done and size == chunk.offset + len(chunk.data)
        work.write_status(structs.replace(chunk.status, worker=worker, finished=is_done))
    return wire.Ack(chunk.part, size, is_done)


def append_at(work: WorkFolder, worker: int, offset: int, data: bytes) -> int:
    """Append `data` if it begins where the worker's journal ends; returns the journal's size."""
    handle = os.open(work.journal(worker), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.lseek(handle, 0, os.SEEK_END)
        if offset == size:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(handle, rest) :]
            size += len(data)
        return size
    finally:
        os.close(handle)
