"""A load worker's journal: finished requests on disk at once, so a killed worker loses none.

An entry is length (u32), CRC-32 of the payload (u32), payload (msgpack); integers are
little-endian. The first entry is the Head, which says what run this is; the others are Records, so a
run folder can be made of journals alone. An entry is handed to the kernel in one write, so after SIGKILL a file holds whole
entries and at most one torn one, at its end. Entries are not fsynced: they outlive the process, not
a power cut.
"""

from __future__ import annotations

import os
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgspec

from loadkit.runs.context import RunContext, Start
from loadkit.runs.record import Record

_HEADER = struct.Struct("<II")


class Head(msgspec.Struct, frozen=True):
    """What run a journal belongs to, as it was known when its worker began."""

    context: RunContext
    start: Start


class JournalWriter:
    """Appends records to a file that only its owner may read (prompts are personal data). A new
    file begins with `head`, if there is one.

    OSError (a full disk) leaves earlier entries readable: what was written of the new one is a torn
    tail. Do not append after that.
    """

    def __init__(self, path: Path, head: Head | None = None):
        self.path = path
        self._encoder = msgspec.msgpack.Encoder()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if head is not None and os.fstat(self._fd).st_size == 0:
            self._write(self._encoder.encode(head))

    def append(self, record: Record) -> Record:
        """Write one record; when this returns, what it returns survives a kill of the process.

        A record that cannot be written as it is (a number beyond 64 bits, half a character, too
        deep) leaves one without its texts and counts: outcome `malformed`, with the reason. That
        one is returned; else the record itself.
        """
        try:
            payload = self._encoder.encode(record)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            record = record.bare(f"its record cannot be kept: {error}")
            payload = self._encoder.encode(record)
        self._write(payload)
        return record

    def _write(self, payload: bytes) -> None:
        entry = memoryview(_HEADER.pack(len(payload), zlib.crc32(payload)) + payload)
        try:
            while entry:
                entry = entry[os.write(self._fd, entry) :]
        except OSError as error:  # `write` knows no names
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Journal:
    """Records in the order they were written, the head (None: none, or damaged), and how many bytes
    were no whole entry: a torn tail, or damage in the middle."""

    records: list[Record]
    torn_bytes: int
    head: Head | None = None


def read_journal(path: Path) -> Journal:
    """Read every whole entry. What is short or damaged is passed over up to the next whole one.

    Its bytes are counted in `torn_bytes`, never guessed at. OSError only if the file cannot be
    opened.
    """
    data = memoryview(path.read_bytes())
    records: list[Record] = []
    head: Head | None = None
    start = torn = 0
    while start < len(data):
        payload = _payload_at(data, start)
        entry = None if payload is None else _decoded(payload)
        if payload is None or entry is None:
            start, torn = start + 1, torn + 1
            continue
        if isinstance(entry, Record):
            records.append(entry)
        else:
            head = head or entry
        start += _HEADER.size + len(payload)
    return Journal(records, torn, head)


def read_on(path: Path, start: int) -> tuple[list[Record], int]:
    """Records of the whole entries from byte `start` on, while the file is still written to, and
    where the next one begins. OSError only if the file cannot be opened."""
    with path.open("rb") as file:
        file.seek(start)
        data = memoryview(file.read())
    records: list[Record] = []
    at = 0
    while (payload := _payload_at(data, at)) is not None:
        entry = _decoded(payload)
        if isinstance(entry, Record):
            records.append(entry)
        at += _HEADER.size + len(payload)
    return records, start + at


def read_head(path: Path) -> Head | None:
    """The head alone; None if the journal has none, or one that is not whole."""
    with path.open("rb") as journal:
        header = journal.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return None
        data = header + journal.read(_HEADER.unpack(header)[0])
    payload = _payload_at(memoryview(data), 0)
    entry = None if payload is None else _decoded(payload)
    return entry if isinstance(entry, Head) else None


_RECORD = msgspec.msgpack.Decoder(Record)
_HEAD = msgspec.msgpack.Decoder(Head)


def _decoded(payload: memoryview) -> Record | Head | None:
    """None: a checksum that fits bytes which are neither."""
    for decoder in (_RECORD, _HEAD):
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            return decoder.decode(payload)
    return None


def _payload_at(data: memoryview, start: int) -> memoryview | None:
    """Payload of the entry at `start`; None if it is cut short or its checksum differs."""
    body = start + _HEADER.size
    if body > len(data):
        return None
    length, checksum = _HEADER.unpack_from(data, start)
    payload = data[body : body + length]
    if length == 0 or len(payload) < length or zlib.crc32(payload) != checksum:
        return None
    return payload
