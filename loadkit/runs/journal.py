"""A load worker's journal: finished requests on disk at once, so a killed worker loses none.

An entry is length (u32), CRC-32 of the payload (u32), payload (msgpack of a Record); integers are
little-endian. An entry is handed to the kernel in one write, so after SIGKILL a file holds whole
entries and at most one torn one, at its end. Entries are not fsynced: they outlive the process, not
a power cut.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgspec

from loadkit.runs.record import Record

_HEADER = struct.Struct("<II")


class JournalWriter:
    """Appends records to a file that only its owner may read (prompts are personal data).

    OSError (a full disk) leaves earlier entries readable: what was written of the new one is a torn
    tail. Do not append after that.
    """

    def __init__(self, path: Path):
        self.path = path
        self._encoder = msgspec.msgpack.Encoder()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

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
        entry = memoryview(_HEADER.pack(len(payload), zlib.crc32(payload)) + payload)
        while entry:
            entry = entry[os.write(self._fd, entry) :]
        return record

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
    """Records in the order they were written, and how many bytes at the end were no whole entry."""

    records: list[Record]
    torn_bytes: int


def read_journal(path: Path) -> Journal:
    """Read every whole entry. The first that is short or damaged ends reading.

    Bytes from there to the end are counted in `torn_bytes`, never guessed at. OSError only if the
    file cannot be opened.
    """
    data = memoryview(path.read_bytes())
    decoder = msgspec.msgpack.Decoder(Record)
    records: list[Record] = []
    start = 0
    while (payload := _payload_at(data, start)) is not None:
        try:
            records.append(decoder.decode(payload))
        except msgspec.DecodeError:  # a checksum that fits bytes which are no Record
            break
        start += _HEADER.size + len(payload)
    return Journal(records, len(data) - start)


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
