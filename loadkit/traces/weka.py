"""Agent sessions, one a line, each with its requests and 64-token block ids of its own.

`t` is in seconds from the session's first request; a subagent's requests count from the moment it
was started, share its session's ids, and belong to that session. Full blocks have an id (floor).
Source of the format: callanjfox/kv-cache-tester, traces/.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np

from loadkit.core.trace import Trace
from loadkit.traces.columns import Columns
from loadkit.traces.id_rows import IdRow
from loadkit.traces.lines import Place
from loadkit.traces.reading import BlockSize, Length, Name, Reading, Seconds

NAME = "weka"
DEFAULT_BLOCK_SIZE = 64
_ID_BITS = 40  # a session's ids are told from another's by the bits above
_MAX_SESSIONS = 2 ** (63 - _ID_BITS)
_NO_COMMON_CLOCK = (
    "every session's clock starts at 0, as if all began together: how they overlap is not in the "
    "log, so only rates of an infinite cache are exact"
)


class Request(msgspec.Struct, rename={"num_input": "in", "num_output": "out"}):
    """A request, or a subagent with requests of its own. Models and timings are skipped."""

    t: Seconds
    num_input: Length | None = None
    num_output: Length | None = None
    hash_ids: list[int] | None = None
    requests: list[Request] | None = None


class Row(msgspec.Struct):
    """A session. hash_id_scope `local`: its ids mean nothing in another session."""

    OF_IDS: ClassVar[bool] = True
    NO_TEXT: ClassVar[frozenset[str]] = frozenset({"models", "totals"})

    id: Name
    requests: list[Request]
    block_size: BlockSize | None = None
    hash_id_scope: str = "local"


def matches(row: dict[str, Any]) -> bool:
    """Whether a log's first row looks like this format."""
    requests = row.get("requests")
    if "id" not in row or not isinstance(requests, list):
        return False
    first = requests[0] if requests else None
    return "hash_id_scope" in row or (isinstance(first, dict) and "hash_ids" in first)


def read(reading: Reading, block_size: int | None = None) -> Trace:
    """Read the log in blocks of the size that its sessions name, 64 if they name none."""
    columns, sessions = Columns(block_size, DEFAULT_BLOCK_SIZE), Sessions()
    for row in sessions.id_rows(reading):
        with reading.row():
            columns.add(row)
    return columns.trace(reading, sessions.notes(), one_clock=False)


class Sessions:
    """Reads the sessions and counts them."""

    def __init__(self) -> None:
        self._seen = set[Name]()
        self._num = self._num_repeated = 0

    def id_rows(self, reading: Reading) -> Iterator[IdRow]:
        """The log's requests, session by session."""
        for place, row in reading.rows(Row):
            self._num_repeated += row.id in self._seen
            self._seen.add(row.id)
            for start_s, request in _requests(row.requests):
                with reading.row():
                    yield _id_row(place, row, self._num, start_s, request)
            self._num += 1

    def notes(self) -> list[str]:
        """What the sessions' clocks and names leave unsaid."""
        notes = [_NO_COMMON_CLOCK] if self._num > 1 else []
        if self._num_repeated:
            notes.append(f"{self._num_repeated} sessions have the id of an earlier one: kept apart")
        return notes


def _id_row(place: Place, row: Row, session: int, start_s: float, request: Request) -> IdRow:
    if request.num_input is None or request.hash_ids is None:
        raise place.error(f"the request at t={request.t} has no `in` or no `hash_ids`")
    local = row.hash_id_scope == "local"
    return IdRow(
        place,
        _scoped(place, request.hash_ids, session) if local else request.hash_ids,
        request.num_input,
        arrival_s=start_s + request.t,
        output_tokens=request.num_output,
        session=session,
        block_size=row.block_size,
    )


def _requests(requests: Sequence[Request], start_s: float = 0.0) -> Iterator[tuple[float, Request]]:
    """All requests of a session, subagents' too, each with the time that its `t` counts from."""
    for request in requests:
        if request.requests is None:
            yield start_s, request
        else:
            yield from _requests(request.requests, start_s + request.t)


def _scoped(place: Place, ids: list[int], session: int) -> Sequence[int]:
    """The ids with the session's number in the bits above them."""
    if ids and not 0 <= min(ids) <= max(ids) < 2**_ID_BITS:
        raise place.error(f"a local block id is not between 0 and 2^{_ID_BITS}")
    if session >= _MAX_SESSIONS:
        raise place.error(f"more than {_MAX_SESSIONS} sessions with local ids")
    return array("q", (np.array(ids, np.int64) + (session << _ID_BITS)).tobytes())
