"""The measured requests of a run folder as columns, for figures that are judged by sessions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from loadkit.core.errors import InputError
from loadkit.core.trace import FloatArray

_NUMBERS = (
    *("turn", "prompt_tokens", "output_tokens", "cached_tokens"),
    *("ttft_s", "tpot_s", "e2e_s", "sent_s", "completed_s", "schedule_delay_s"),
    *("replay_same_session", "replay_cross_session", "continuation", "shared"),
)
_WORDS = ("session", "outcome", "replay", "main_cause")
_MAY_BE_NEGATIVE = ("schedule_delay_s", "sent_s", "completed_s")
_DAMAGED = "the run folder is damaged: run again, or restore it from where it was kept"


@dataclass(frozen=True, slots=True)
class Requests:
    """Columns of one row a measured request; NaN and "": not known. `session` counts from 0 in the
    order of `names`. num_left: requests that users left on purpose."""

    names: tuple[str, ...]
    session: npt.NDArray[np.int64]
    outcome: npt.NDArray[Any]
    replay: npt.NDArray[Any]
    main_cause: npt.NDArray[Any]
    number: dict[str, FloatArray]
    num_left: int

    @property
    def is_ok(self) -> npt.NDArray[np.bool_]:
        answered: npt.NDArray[np.bool_] = self.outcome == "ok"
        return answered

    @property
    def is_split(self) -> npt.NDArray[np.bool_]:
        """Answered, and it is known what was hit and why: the requests of every rate."""
        known: npt.NDArray[np.bool_] = self.is_ok & np.isfinite(self.hit)
        return known

    @property
    def is_organic(self) -> npt.NDArray[np.bool_]:
        """Of these the ones whose prompt was new when it was sent."""
        new: npt.NDArray[np.bool_] = self.is_split & (self.replay == "")
        return new

    @property
    def hit(self) -> FloatArray:
        """Hit tokens of every cause a request; NaN without a split."""
        return (
            self.number["replay_same_session"] + self.number["replay_cross_session"] + self.genuine
        )

    @property
    def genuine(self) -> FloatArray:
        return self.number["continuation"] + self.number["shared"]

    def by_session(
        self, values: FloatArray, rows: npt.NDArray[np.bool_] | None = None
    ) -> FloatArray:
        """Sums a session, shape (sessions,); `rows` chooses requests, unknown values count nothing."""
        chosen = np.isfinite(values) if rows is None else rows & np.isfinite(values)
        sums = np.zeros(len(self.names))
        np.add.at(sums, self.session[chosen], values[chosen])
        return sums


def read_requests(folder: Path) -> Requests:
    """requests.parquet. InputError if it cannot be read, or says what cannot be."""
    path = folder / "requests.parquet"
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError("cannot be read", where=path, remedy=_DAMAGED) from error
    missing = {*_NUMBERS, *_WORDS, "phase", "left"} - set(table.column_names)
    if missing:
        what = f"no column {', '.join(sorted(missing))}"
        raise InputError(what, where=path, remedy="written by another version; run again")
    return _requests(table, path)


def _requests(table: pa.Table, path: Path) -> Requests:
    phase = _words(table, "phase")
    table = table.filter(pa.array((phase == "measured") | (phase == "")))
    try:
        number = {name: _numbers(table, name) for name in _NUMBERS}
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise InputError(f"a column is of another type: {error}", where=path) from error
    words = {name: _words(table, name) for name in _WORDS}
    names, session = np.unique(words["session"].astype(str), return_inverse=True)
    found = Requests(
        names=tuple(str(name) for name in names),
        session=session.astype(np.int64).reshape(-1),
        outcome=words["outcome"],
        replay=words["replay"],
        main_cause=words["main_cause"],
        number=number,
        num_left=_count_true(table, "left"),
    )
    _check(found, path)
    return found


def _numbers(table: pa.Table, name: str) -> FloatArray:
    column = table[name].cast(pa.float64()).to_pylist()
    return np.array([np.nan if value is None else value for value in column], dtype=np.float64)


def _count_true(table: pa.Table, name: str) -> int:
    return sum(value is True for value in table[name].to_pylist())


def _words(table: pa.Table, name: str) -> npt.NDArray[Any]:
    values = ["" if value is None else str(value) for value in table[name].to_pylist()]
    return np.array(values, dtype=object)


def _check(found: Requests, path: Path) -> None:
    """InputError for a hit rate above 1, a negative count, or an infinite figure."""
    for name, values in found.number.items():
        bad = np.isinf(values) if name in _MAY_BE_NEGATIVE else np.isinf(values) | (values < 0)
        if bool(bad.any()):
            row = int(np.flatnonzero(bad)[0])
            what = f"row {row + 1}, {name}: {values[row]:g} cannot be"
            raise InputError(what, where=path, remedy=_DAMAGED)
    above = found.hit > found.number["prompt_tokens"]
    if bool(above.any()):
        row = int(np.flatnonzero(above)[0])
        what = f"row {row + 1}: more hit tokens than prompt tokens"
        raise InputError(what, where=path, remedy=_DAMAGED)
