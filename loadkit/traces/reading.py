"""Rows out of any source, decoded, with what happens to a bad one: refused, or skipped and listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec

from loadkit.core.errors import FormatError, InputError
from loadkit.traces.gaps import Gaps, raw_fields
from loadkit.traces.lines import Line, Place, read_lines
from loadkit.traces.tables import is_hub, read_hub, read_parquet

# Fields of rows. The bounds keep sums far from overflow; nanoseconds since 1970 are 1.8e18.
Seconds = Annotated[float, msgspec.Meta(ge=-1e19, le=1e19)]
Milliseconds = Seconds
Duration = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Length = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
BlockSize = Annotated[int, msgspec.Meta(ge=1, le=2**40)]
Name = str | int

NUM_SKIPPED_LISTED = 10

Row = TypeVar("Row")


class Progress(NamedTuple):
    """How far reading is. `share` of the bytes on disk, 0..1; None for tables and datasets."""

    rows: int
    share: float | None


class Reading:
    """One log being read. Every row is asked for here, every bad row is reported here."""

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        skip_bad: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
        recognise: Callable[[dict[str, Any]], str | None] | None = None,
    ):
        """`recognise` names another format that a row looks like. Rows that do not fit say it, and
        a row with text in fields that its own format does not know is refused with it."""
        self.paths = tuple(paths)
        self.skip_bad = skip_bad
        self._on_progress = on_progress
        self._recognise = recognise
        self.gaps = Gaps()
        self._skipped: list[FormatError] = []
        self._num_skipped = self._num_rows = 0
        self._bytes_before, self._bytes_all = 0, sum(map(_size, self.paths))

    def rows(self, row_type: type[Row]) -> Iterator[tuple[Place, Row]]:
        """All rows decoded into `row_type`, in the order given. FormatError for one that misfits."""
        for path in self.paths:
            rows = self._table(path, row_type) if _is_table(path) else self._text(path, row_type)
            for row in rows:
                self._num_rows += 1
                yield row
            self._bytes_before += _size(path)

    @contextmanager
    def row(self) -> Iterator[None]:
        """Around the work on one row: its FormatError is raised, or kept for the list of skipped."""
        try:
            yield
        except FormatError as error:
            if not self.skip_bad:
                raise
            self._num_skipped += 1
            if len(self._skipped) < NUM_SKIPPED_LISTED:
                self._skipped.append(error)

    def warnings(self) -> list[str]:
        """What was skipped (the count, and the first few with their reasons) and not counted."""
        return [*self._skips(), *self.gaps.warnings()]

    def _skips(self) -> list[str]:
        if not self._num_skipped:
            return []
        more = self._num_skipped - len(self._skipped)
        rest = [f"and {more} more rows were skipped"] if more else []
        count = (
            f"{self._num_skipped} bad row{'s were' if self._num_skipped > 1 else ' was'} skipped"
        )
        return [count, *(f"skipped {error}" for error in self._skipped), *rest]

    def empty(self) -> InputError:
        """The error for a log without a request."""
        remedy = "a log needs at least one row, one a line"
        if self._skipped:
            remedy = f"all {self._num_skipped} were skipped, the first: {self._skipped[0]}"
        names = ", ".join(map(str, self.paths)) or "LOG"
        return InputError("the log has no request", where=names, remedy=remedy)

    def _text(self, path: Path, row_type: type[Row]) -> Iterator[tuple[Place, Row]]:
        decoder, has_fields = msgspec.json.Decoder(row_type), _has_fields(row_type)
        for line in read_lines(path, self._told):
            place = Place(line.path, line.number)
            with self.row():
                row = self._decoded(line, place, decoder)
                if has_fields:
                    self.check_fields(place, row_type, raw_fields(line.data), line.data)
                yield place, row

    def _decoded(self, line: Line, place: Place, decoder: msgspec.json.Decoder[Row]) -> Row:
        try:
            return decoder.decode(line.data)
        except msgspec.ValidationError as error:
            raise self._misfit(place, line.data, error) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _not_json(line, place, error) from error

    def _table(self, path: Path, row_type: type[Row]) -> Iterator[tuple[Place, Row]]:
        has_fields = _has_fields(row_type)
        for place, row in read_hub(path) if is_hub(path) else read_parquet(path):
            if self._on_progress is not None:
                self._on_progress(Progress(self._num_rows, None))
            with self.row():
                try:
                    converted = msgspec.convert(row, row_type)
                except msgspec.ValidationError as error:
                    raise self._hinted(place, error, row) from error
                if has_fields:
                    self.check_fields(place, row_type, row)
                yield place, converted

    def check_fields(
        self, place: Place, row_type: type, row: Mapping[str, Any], line: bytes | None = None
    ) -> None:
        """Name the fields that hold text and that `row_type` does not know.

        FormatError if the row, which `line` is the whole of, looks like another format's for them.
        """
        unknown = self.gaps.fields_of(place, row_type, row)
        if not unknown or self._recognise is None:
            return
        other = self._recognise(dict(row) if line is None else _as_dict(line))
        if other is not None:
            raise place.error(
                f"the row has `{unknown[0]}` and looks like `{other}`",
                f"one format a log; --format {other} reads all rows as that",
            )

    def _told(self, bytes_read: int) -> None:
        if self._on_progress is not None:
            share = (self._bytes_before + bytes_read) / max(1, self._bytes_all)
            self._on_progress(Progress(self._num_rows, min(1.0, share)))

    def _misfit(self, place: Place, data: bytes, error: Exception) -> FormatError:
        """The error of a line that is JSON but not what the format asks for.

        A text that no key asks for is passed over undecoded, so bytes that are no UTF-8 show here.
        """
        if not _is_utf8(data):
            return place.error("the line is not UTF-8", "convert the log to UTF-8")
        if not data.startswith(b"{"):
            remedy = "a log is one JSON object a line"
            return place.error("the line is no JSON object", remedy)
        return self._hinted(place, error, _as_dict(data))

    def _hinted(self, place: Place, error: Exception, row: dict[str, Any]) -> FormatError:
        name = self._recognise(row) if self._recognise else None
        remedy = f"the row looks like `{name}`: one format a log" if name else None
        return place.error(f"the row does not fit the format: {error}", remedy)


def _has_fields(row_type: type) -> bool:
    return isinstance(row_type, type) and issubclass(row_type, msgspec.Struct)


def _as_dict(data: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _not_json(line: Line, place: Place, error: Exception) -> FormatError:
    if isinstance(error, UnicodeDecodeError) or not _is_utf8(line.data):
        return place.error("the line is not UTF-8", "convert the log to UTF-8")
    if line.data.startswith(b"["):
        return place.error("the line is no JSON object", "a log is one JSON object a line")
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


def _is_table(path: Path) -> bool:
    return is_hub(path) or path.suffix == ".parquet"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
