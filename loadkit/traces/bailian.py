"""Bailian usage traces: a request a line, time in seconds, ids of single 16-token blocks.

The ids are hashes of single blocks: the same id after another beginning is another prefix. They are
chained on reading, without which reuse is overcounted. parent_chat_id names the request before in
the session, -1 for a first one. Source of the format: alibaba-edu/qwen-bailian-usagetraces-anon.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np

from loadkit.core.trace import IntArray, Trace
from loadkit.traces.columns import Columns
from loadkit.traces.id_rows import IdRow, as_signed
from loadkit.traces.interning import chained_ids
from loadkit.traces.lines import Place
from loadkit.traces.reading import Length, Name, Reading, Seconds

NAME = "bailian"
DEFAULT_BLOCK_SIZE = 16
_NO_PARENT = -1


class Row(msgspec.Struct):
    """`type` and `turn` are skipped: they change no block."""

    OF_IDS: ClassVar[bool] = True
    NO_TEXT: ClassVar[frozenset[str]] = frozenset({"turn"})

    chat_id: Name
    input_length: Length
    hash_ids: list[int]
    parent_chat_id: Name = _NO_PARENT
    timestamp: Seconds | None = None
    output_length: Length | None = None


def matches(row: dict[str, Any]) -> bool:
    """Whether a log's first row looks like this format."""
    return {"chat_id", "hash_ids", "input_length"} <= row.keys()


def read(reading: Reading, block_size: int | None = None) -> Trace:
    """Read the log in blocks of 16 unless told."""
    columns, links = Columns(block_size, DEFAULT_BLOCK_SIZE, chained=False), Links()
    for place, row in reading.rows(Row):
        with reading.row():
            columns.add(_id_row(place, row, row.hash_ids))
            links.add(row.chat_id, row.parent_chat_id)
    columns.facts.set_sessions(links.sessions(columns.facts.place))
    return columns.trace(reading, [*links.warnings(), *_single_blocks(columns)])


def id_rows(reading: Reading) -> Iterator[IdRow]:
    """The log's requests one by one, their ids chained."""
    for place, row in reading.rows(Row):
        with reading.row():
            single = np.array(as_signed(place, row.hash_ids), np.int64)
            yield _id_row(place, row, chained_ids(single))


def _id_row(place: Place, row: Row, ids: Sequence[int]) -> IdRow:
    return IdRow(
        place,
        ids,
        row.input_length,
        arrival_s=row.timestamp,
        output_tokens=row.output_length,
        request_id=row.chat_id,
        link=(row.chat_id, row.parent_chat_id),
    )


def _single_blocks(columns: Columns) -> list[str]:
    """Says what chaining changed; nothing if every id had one parent anyway."""
    table = columns.chains.table
    columns.chains.flush()
    several = table.num_ids - table.num_values()
    if not several:
        return []
    return [
        f"the block ids stand for single blocks: {table.num_values()} ids were chained to "
        f"{table.num_ids} prefixes on reading"
    ]


class Links:
    """Which request continues which. Ids of chats are numbered as they appear, here or as parent."""

    def __init__(self) -> None:
        self._codes: dict[Name, int] = {}
        self._chat, self._parent = array("q"), array("q")

    def add(self, chat: Name, parent: Name) -> None:
        self._chat.append(self._code(chat))
        first = parent in (_NO_PARENT, str(_NO_PARENT)) or parent == chat
        self._parent.append(_NO_PARENT if first else self._code(parent))

    def sessions(self, place_of: Callable[[int], Place]) -> IntArray:
        """(n,) the code of each row's first ancestor; that may be a chat which is not in the log.

        FormatError if links go in a circle.
        """
        chat, parent_of = np.array(self._chat, np.int64), self._parent_of()
        ancestor = parent_of
        for _ in range(len(ancestor).bit_length() + 1):  # each round doubles the steps taken
            ancestor = ancestor[ancestor]
        circle = np.flatnonzero(parent_of[ancestor[chat]] != ancestor[chat])
        if len(circle):
            raise place_of(int(circle[0])).error("the parent_chat_id links go in a circle")
        return ancestor[chat]

    def warnings(self) -> list[str]:
        """Counts the rows whose parent is not in the log."""
        parents = np.array(self._parent, np.int64)
        lost = ~np.isin(parents, np.array(self._chat, np.int64)) & (parents != _NO_PARENT)
        if not lost.any():
            return []
        return [f"{lost.sum()} rows name a parent_chat_id that the log does not hold"]

    def _parent_of(self) -> IntArray:
        """(codes,) the parent of each chat, itself for a first one; the first row of a chat counts."""
        parent_of = np.arange(len(self._codes))
        chat, parent = np.array(self._chat, np.int64), np.array(self._parent, np.int64)
        linked = np.flatnonzero(parent != _NO_PARENT)[::-1]
        parent_of[chat[linked]] = parent[linked]
        return parent_of

    def _code(self, name: Name) -> int:
        return self._codes.setdefault(name, len(self._codes))
