"""What every format knows of a request beside its blocks: place, time, session, id, output."""

from __future__ import annotations

from array import array
from hashlib import blake2b
from pathlib import Path

import numpy as np

from loadkit.core.trace import UNKNOWN, FloatArray, IntArray, Places
from loadkit.traces.lines import Place
from loadkit.traces.reading import Name

NO_TIME = "the log has no timestamps: requests are taken in the order given"
_NAN = float("nan")


class RowFacts:
    """Columns of plain numbers, about 60 B a row; unknown times are NaN in here, and only here."""

    def __init__(self) -> None:
        self._paths: list[Path] = []
        self._path, self._line = array("i"), array("q")
        self._arrival = array("d")
        self._outputs = array("q")
        self._sessions: dict[Name, int] = {}
        self._session = array("q")
        self._request_ids = array("q")
        self._num_timed = 0

    def __len__(self) -> int:
        return len(self._line)

    def add(
        self,
        place: Place,
        *,
        arrival_s: float | None,
        output_tokens: int | None,
        session: Name | None,
        request_id: Name | None,
    ) -> None:
        """Append a row. FormatError, and nothing appended, if only some rows have a timestamp."""
        self._check_time(place, arrival_s)
        if not self._paths or self._paths[-1] != place.path:
            self._paths.append(place.path)
        self._path.append(len(self._paths) - 1)
        self._line.append(place.number)
        self._arrival.append(_NAN if arrival_s is None else arrival_s)
        self._num_timed += arrival_s is not None
        self._outputs.append(UNKNOWN if output_tokens is None else output_tokens)
        known = self._sessions
        self._session.append(UNKNOWN if session is None else known.setdefault(session, len(known)))
        if request_id is not None:
            self._request_ids.append(stable_hash(request_id))

    def extend(self, other: RowFacts) -> None:
        """Append another log's rows. FormatError if only one of the two has timestamps."""
        if len(other):
            self._check_time(other.place(0), 0.0 if other._num_timed else None)
        paths, known = len(self._paths), self._sessions
        code = np.array(
            [*(known.setdefault(name, len(known)) for name in other._sessions), UNKNOWN], np.int64
        )
        self._paths += other._paths
        self._path.extend(paths + path for path in other._path)
        self._session.frombytes(code[np.array(other._session, np.int64)].tobytes())
        self._num_timed += other._num_timed
        for name in ("_line", "_arrival", "_outputs", "_request_ids"):
            getattr(self, name).extend(getattr(other, name))

    def place(self, row: int) -> Place:
        return Place(self._paths[self._path[row]], self._line[row])

    def places(self, order: IntArray | None = None) -> Places:
        """Of all rows, in another order if one is given."""
        path, line = np.array(self._path, np.int32), np.array(self._line, np.int64)
        if order is not None:
            path, line = path[order], line[order]
        return Places(tuple(map(str, self._paths)), path, line)

    def arrivals(self) -> FloatArray | None:
        """(n,) in the order read; None if no row has a time."""
        return np.array(self._arrival, np.float64) if self._num_timed else None

    def outputs(self, order: IntArray | None = None) -> IntArray:
        return _taken(np.array(self._outputs, np.int64), order)

    def session_codes(self, order: IntArray | None = None) -> IntArray:
        """(n,) equal where the session names are equal; UNKNOWN where a row has none."""
        return _taken(np.array(self._session, np.int64), order)

    def set_sessions(self, codes: IntArray) -> None:
        """Say which rows belong together, for a format whose rows do not name their session."""
        self._session = array("q", codes.tobytes())

    def repeated_ids(self) -> list[str]:
        """A warning if request ids occur again: the log may hold requests twice."""
        ids = np.array(self._request_ids, np.int64)
        repeated = len(ids) - len(np.unique(ids))
        if not repeated:
            return []
        return [
            f"{repeated} {'rows have' if repeated > 1 else 'row has'} the request id of an earlier"
            " row: what was logged twice shows as replay"
        ]

    def _check_time(self, place: Place, arrival_s: float | None) -> None:
        if len(self) and (arrival_s is None) == (self._num_timed > 0):
            what = "no timestamp, but other rows have one"
            if arrival_s is not None:
                what = "a timestamp, but the rows before have none"
            raise place.error(what, "give every row a timestamp, or none")


def stable_hash(name: Name) -> int:
    """64 bits, signed, that are the same in every process; a number and its digits differ."""
    digest = blake2b(f"{type(name).__name__} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def order_by_arrival(facts: RowFacts) -> tuple[FloatArray | None, IntArray | None, list[str]]:
    """Sorted arrival times, the order that sorts the rows (None: they are sorted), warnings."""
    arrival_s = facts.arrivals()
    if arrival_s is None:
        return None, None, [NO_TIME]
    late = np.flatnonzero(np.diff(arrival_s) < 0)
    if not len(late):
        return arrival_s, None, []
    order = np.argsort(arrival_s, kind="stable")
    first = facts.place(int(late[0]) + 1)
    warning = f"timestamps go backwards {len(late)} times, first at {first}: rows were sorted"
    return arrival_s[order], order, [warning]


def _taken(values: IntArray, order: IntArray | None) -> IntArray:
    return values if order is None else values[order]
