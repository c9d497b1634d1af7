"""Lines of log files, plain or compressed, each with its place; the elements of a JSON array too."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import msgspec

from loadkit.core.errors import FormatError, InputError

# A guard against a file that is no JSONL at all; the longest public agent session is under 40 MB.
MAX_LINE_BYTES = 128 * 1024 * 1024
# A JSON array or a document over several lines has to be in memory as a whole.
MAX_DOCUMENT_BYTES = 1024 * 1024 * 1024
# A few kilobytes of compressed line ends would keep the reader busy for hours.
MAX_BLANK_LINES = 100_000
# At most 32,000 times as many come out at once, so that a bomb meets the cap on lines.
_ZSTD_BYTES_AT_ONCE = 2048
COMPRESSED = (".gz", ".zst")

OnBytes = Callable[[int], None]


class Line(NamedTuple):
    """One non-blank line. `number` counts from 1; `complete` is False if no newline ends it."""

    path: Path
    number: int
    data: bytes
    complete: bool


class Place(NamedTuple):
    """Where a row stands; `number` counts lines from 1, rows in Parquet and datasets."""

    path: Path
    number: int

    def __str__(self) -> str:
        return f"{self.path}:{self.number}"

    def error(self, what: str, remedy: str | None = None) -> FormatError:
        """The FormatError of this row."""
        return FormatError(what, path=self.path, line=self.number, remedy=remedy)


def read_lines(path: Path, on_bytes: OnBytes | None = None) -> Iterator[Line]:
    """Non-blank lines of a file, or the elements of a JSON array with the line each begins on.

    `on_bytes` is told after every line how many bytes of the file (as it lies on disk) are read.
    InputError for a file that cannot be read.
    """
    with reading_errors(path), path.open("rb") as raw, _open(path, raw) as file:
        for line in _lines_or_elements(path, file):
            yield line
            if on_bytes is not None:
                on_bytes(raw.tell())


@contextmanager
def reading_errors(path: Path) -> Iterator[None]:
    """Turn what goes wrong while reading `path` into an InputError."""
    try:
        yield
    except _read_errors() as error:
        raise InputError(
            f"cannot be read: {_reason(error)}",
            where=path,
            remedy="is the file there, whole, and compressed as its name says?",
        ) from error


def plain_suffix(path: Path) -> str:
    """The suffix without that of the compression: `.json` for `log.json.gz`."""
    return Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix


def _open(path: Path, raw: BinaryIO) -> BinaryIO:
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw, mode="rb"))
    if path.suffix == ".zst":
        return _open_zst(path, raw)
    return raw


def _read_errors() -> tuple[type[Exception], ...]:
    try:
        import zstandard
    except ImportError:
        return OSError, EOFError, zlib.error
    return OSError, EOFError, zlib.error, zstandard.ZstdError


def _open_zst(path: Path, raw: BinaryIO) -> BinaryIO:
    try:
        import zstandard
    except ImportError as error:
        raise InputError(
            "reading .zst needs the package `zstandard`",
            where=path,
            remedy="pip install zstandard, or decompress the file",
        ) from error
    return cast(BinaryIO, io.BufferedReader(_ZstdFile(raw, zstandard.ZstdDecompressor())))


class _ZstdFile(io.RawIOBase):
    """Decompressed bytes of one or more zstd frames. EOFError if the last one is cut off.

    zstandard's own reader ends silently there, which can lose whole lines.
    """

    def __init__(self, raw: BinaryIO, decompressor: Any):
        self._raw, self._decompressor = raw, decompressor
        self._frame: Any = None
        self._input = self._output = b""
        self._taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self._taken == len(self._output):
            self._input = self._input or self._raw.read(_ZSTD_BYTES_AT_ONCE)
            if not self._input:
                if self._frame is not None:
                    raise EOFError("the compressed file ends too early")
                return 0
            self._decompress()
        part = self._output[self._taken : self._taken + len(buffer)]
        buffer[: len(part)] = part
        self._taken += len(part)
        return len(part)

    def _decompress(self) -> None:
        self._frame = self._frame or self._decompressor.decompressobj()
        self._output, self._taken = self._frame.decompress(self._input), 0
        self._input = self._frame.unused_data if self._frame.eof else b""
        if self._frame.eof:
            self._frame = None


def _lines_or_elements(path: Path, file: BinaryIO) -> Iterator[Line]:
    lines = _lines_of(path, file)
    for first in lines:
        if first.data.startswith(b"["):
            yield from _elements(first, file)
        elif plain_suffix(path) == ".json" and not _is_json(first.data):
            yield _document(first, file)
        else:
            yield first
            yield from lines


def _lines_of(path: Path, file: BinaryIO) -> Iterator[Line]:
    number = last = 0
    while data := file.readline(MAX_LINE_BYTES):
        number += 1
        complete = data.endswith(b"\n")
        if not complete and len(data) == MAX_LINE_BYTES:
            raise Place(path, number).error(
                f"the line is longer than {MAX_LINE_BYTES // 1024**2} MiB",
                "one JSON object a line is expected",
            )
        if stripped := data.strip():
            last = number
            yield Line(path, number, stripped, complete)
        elif number - last > MAX_BLANK_LINES:
            raise Place(path, number).error(
                f"{MAX_BLANK_LINES:,} empty lines in a row", "is this a log?"
            )


def _document(first: Line, file: BinaryIO) -> Line:
    """One object over many lines, as a pretty-printed .json file holds it."""
    return Line(first.path, first.number, first.data + b"\n" + _rest(first, file), True)


def _elements(first: Line, file: BinaryIO) -> Iterator[Line]:
    """The elements of a JSON array. Its strings have no raw newlines, so lines can be counted."""
    data = first.data + b"\n" + _rest(first, file)
    try:
        elements = msgspec.json.decode(data, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _array_error(first, data, error) from error
    at, number = 0, first.number
    for raw in elements:
        element = bytes(raw)
        start = data.index(element, at)
        number += data.count(b"\n", at, start)
        yield Line(first.path, number, element, True)
        number += element.count(b"\n")
        at = start + len(element)


def _array_error(first: Line, data: bytes, error: Exception) -> FormatError:
    place = Place(first.path, first.number + data.rstrip().count(b"\n"))
    if "truncated" in str(error):
        return place.error("the JSON array is cut off", "copy the log again")
    place = Place(first.path, first.number)
    return place.error(
        f"the file begins as a JSON array and is none: {error}",
        "one JSON object a line (JSONL), or one array of objects",
    )


def _rest(first: Line, file: BinaryIO) -> bytes:
    rest = file.read(MAX_DOCUMENT_BYTES)
    if len(rest) == MAX_DOCUMENT_BYTES:
        raise Place(first.path, first.number).error(
            f"a JSON document of more than {MAX_DOCUMENT_BYTES // 1024**2} MiB",
            "convert it to JSONL, one object a line",
        )
    return rest


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or repr(error)
