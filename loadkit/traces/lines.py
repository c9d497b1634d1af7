"""Lines of log files, plain or compressed, each with its place; one JSON object a line."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NamedTuple, TypeVar, cast

import msgspec

from loadkit.core.errors import FormatError, InputError

# A guard against a file that is no JSONL at all; the longest public agent prompt is under 4 MB.
MAX_LINE_BYTES = 128 * 1024 * 1024

# Fields of rows. The bounds keep sums far from overflow; nanoseconds since 1970 are 1.8e18.
Seconds = Annotated[float, msgspec.Meta(ge=-1e19, le=1e19)]
Milliseconds = Seconds
Length = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
BlockSize = Annotated[int, msgspec.Meta(ge=1, le=2**40)]

Row = TypeVar("Row")


class Line(NamedTuple):
    """One non-blank line. `number` counts from 1; `complete` is False if no newline ends it."""

    path: Path
    number: int
    data: bytes
    complete: bool


class Place(NamedTuple):
    """Where a row stands; `number` counts lines from 1."""

    path: Path
    number: int

    def __str__(self) -> str:
        return f"{self.path}:{self.number}"

    def error(self, what: str, remedy: str | None = None) -> FormatError:
        """The FormatError of this row."""
        return FormatError(what, path=self.path, line=self.number, remedy=remedy)


def read_lines(paths: Sequence[Path]) -> Iterator[Line]:
    """Non-blank lines of all files in the order given. InputError for a file that cannot be read."""
    for path in paths:
        try:
            with _open(path) as file:
                yield from _lines_of(path, file)
        except _read_errors() as error:
            raise InputError(
                f"cannot be read: {_reason(error)}",
                where=path,
                remedy="is the file there, whole, and compressed as its name says?",
            ) from error


def decode_rows(lines: Iterator[Line], row_type: type[Row]) -> Iterator[tuple[Place, Row]]:
    """Rows decoded into `row_type` with their places. FormatError for a row that does not fit."""
    decoder = msgspec.json.Decoder(row_type)
    for line in lines:
        place = Place(line.path, line.number)
        try:
            yield place, decoder.decode(line.data)
        except msgspec.ValidationError as error:
            raise _misfit(line, error) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _not_json(line, error) from error


def first_row(paths: Sequence[Path]) -> tuple[Place, dict[str, Any]]:
    """The first row as a plain dict. InputError if there is none, FormatError if it is no object."""
    for place, row in decode_rows(read_lines(paths), dict[str, Any]):
        return place, row
    raise empty_log(paths)


def empty_log(paths: Sequence[Path]) -> InputError:
    """The error for a log without a row."""
    names = ", ".join(str(path) for path in paths) or "LOG"
    return InputError(
        "the log has no request", where=names, remedy="a log needs at least one row, one a line"
    )


def _open(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.suffix == ".zst":
        return _open_zst(path)
    return path.open("rb")


def _read_errors() -> tuple[type[Exception], ...]:
    try:
        import zstandard
    except ImportError:
        return OSError, EOFError, zlib.error
    return OSError, EOFError, zlib.error, zstandard.ZstdError


def _open_zst(path: Path) -> BinaryIO:
    try:
        import zstandard
    except ImportError as error:
        raise InputError(
            "reading .zst needs the package `zstandard`",
            where=path,
            remedy="pip install zstandard, or decompress the file",
        ) from error
    return cast(BinaryIO, io.BufferedReader(zstandard.open(path, "rb")))


def _lines_of(path: Path, file: BinaryIO) -> Iterator[Line]:
    number = 0
    while data := file.readline(MAX_LINE_BYTES):
        number += 1
        complete = data.endswith(b"\n")
        if not complete and len(data) == MAX_LINE_BYTES:
            raise Place(path, number).error(
                f"the line is longer than {MAX_LINE_BYTES // 1024**2} MiB",
                "one JSON object a line is expected",
            )
        if stripped := data.strip():
            yield Line(path, number, stripped, complete)


def _misfit(line: Line, error: Exception) -> FormatError:
    """The error of a line that is JSON but not what the format asks for."""
    place = Place(line.path, line.number)
    if not line.data.startswith(b"{"):
        remedy = "write one object a line (JSONL), not a JSON array"
        return place.error("the line is no JSON object", remedy)
    return place.error(f"the row does not fit the format: {error}")


def _not_json(line: Line, error: Exception) -> FormatError:
    place = Place(line.path, line.number)
    if isinstance(error, UnicodeDecodeError) or not _is_utf8(line.data):
        return place.error("the line is not UTF-8", "convert the log to UTF-8")
    if line.data.startswith(b"["):
        return _misfit(line, error)
    if not line.complete and line.data.startswith(b"{"):
        return place.error(
            "the last line is cut off: JSON ends in the middle",
            "copy the log again or delete the line",
        )
    return place.error(f"the line is not JSON: {error}", "write one JSON object a line")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or repr(error)
