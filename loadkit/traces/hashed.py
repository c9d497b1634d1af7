"""loadkit's own log without text: chained block ids, one request a line, times in seconds.

Keys: prompt_tokens, hashes (64-bit, chained: full blocks, or with one for the partial tail);
timestamp_s, session, tenant (its hashes are salted apart already), output_tokens, block_size.
Written by `write_hashed` where the log knew it: reply_hashes (the full blocks that the reply added
after the prompt's full ones), completed_s (when they were in the cache), partial_page (the request
also held an unfinished page), prompt_id (equal for identical whole prompts, the tail included).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import msgspec
import numpy as np

from loadkit.core.trace import IntArray, Trace
from loadkit.traces.columns import Columns
from loadkit.traces.id_rows import IdRow, as_signed
from loadkit.traces.interning import ChainStore, dense_by_appearance, renumber, take_chains
from loadkit.traces.lines import Place
from loadkit.traces.reading import BlockSize, Length, Name, Reading, Seconds
from loadkit.traces.rows import stable_hash

NAME = "hashed"
DEFAULT_BLOCK_SIZE = 16


class Row(msgspec.Struct):
    """The keys that loadkit writes."""

    OF_IDS: ClassVar[bool] = True

    prompt_tokens: Length
    hashes: list[int]
    timestamp_s: Seconds | None = None
    output_tokens: Length | None = None
    session: Name | None = None
    block_size: BlockSize | None = None
    reply_hashes: list[int] | None = None
    completed_s: Seconds | None = None
    partial_page: bool | None = None
    prompt_id: Name | None = None
    tenant: Name | None = None


def matches(row: dict[str, Any]) -> bool:
    """Whether a log's first row looks like this format."""
    return "hashes" in row and "prompt_tokens" in row


def read(reading: Reading, block_size: int | None = None) -> Trace:
    """Read the log; `block_size` must agree with the rows' own."""
    columns = Columns(block_size, DEFAULT_BLOCK_SIZE)
    more = _Written(columns)
    for place, row in reading.rows(Row):
        with reading.row():
            more.check(place, row)
            columns.add(_id_row(place, row))
            more.add(place, row)
    return more.completed(columns.trace(reading))


def id_rows(reading: Reading) -> Iterator[IdRow]:
    """The log's prompts one by one; of replies it is only said that there are some."""
    for place, row in reading.rows(Row):
        yield _id_row(place, row)


def _id_row(place: Place, row: Row) -> IdRow:
    return IdRow(
        place,
        row.hashes,
        row.prompt_tokens,
        prompt_key=None if row.prompt_id is None else stable_hash(row.prompt_id),
        arrival_s=row.timestamp_s,
        output_tokens=row.output_tokens,
        session=row.session,
        block_size=row.block_size,
        has_reply=bool(row.reply_hashes),
    )


class _Written:
    """The keys that only `write_hashed` writes: all rows have one, or none does."""

    def __init__(self, columns: Columns):
        self._columns = columns
        self._residents = ChainStore(columns.chains.table)
        self._completed, self._partial = array("d"), array("b")
        self._prompts: dict[Name, int] = {}
        self._prompt = array("q")
        self._tenants: dict[Name | None, int] = {}
        self._tenant = array("q")
        self._first: tuple[bool, ...] | None = None

    def check(self, place: Place, row: Row) -> None:
        """FormatError if the row has other keys than the first one."""
        if self._first not in (None, _optional(row)):
            raise place.error(
                "the row has other ones of reply_hashes, completed_s, partial_page, prompt_id than "
                "the first row",
                "give each of these on all rows, or on none",
            )
        as_signed(place, row.reply_hashes or ())

    def add(self, place: Place, row: Row) -> None:
        self._first = _optional(row)
        self._tenant.append(self._tenants.setdefault(row.tenant, len(self._tenants)))
        full = row.prompt_tokens // self._columns.block_size
        if row.reply_hashes is not None:
            self._columns.has_replies = True
            self._residents.add(as_signed(place, [*row.hashes[:full], *row.reply_hashes]))
        if row.completed_s is not None:
            self._completed.append(row.completed_s)
        if row.partial_page is not None:
            self._partial.append(row.partial_page)
        if row.prompt_id is not None:
            self._prompt.append(self._prompts.setdefault(row.prompt_id, len(self._prompts)))

    def completed(self, trace: Trace) -> Trace:
        """The trace with what these keys say, in its order."""
        order = self._columns.order
        rows = np.arange(trace.num_requests) if order is None else order
        replies, completed, partial, prompts = self._first or (False,) * 4
        if replies:
            ptr, ids = self._resident_chains(rows)
            renumber(self._columns.chains.table.num_ids, trace.block_ids, ids)
            trace = replace(trace, resident_ptr=ptr, resident_ids=ids)
        if completed:
            trace = replace(trace, completed_s=np.array(self._completed, np.float64)[rows])
        if partial:
            trace = replace(trace, partial_page=np.array(self._partial, np.bool_)[rows])
        if len(self._tenants) > 1:  # rows that name none are one more
            trace = replace(trace, tenant=np.array(self._tenant, np.int64)[rows])
        if prompts:
            trace = replace(
                trace, prompt_key=dense_by_appearance(np.array(self._prompt, np.int64)[rows])
            )
        return trace

    def _resident_chains(self, rows: IntArray) -> tuple[IntArray, IntArray]:
        ids = self._residents.ids()
        if self._residents.clash is not None:
            row, dense_id = self._residents.clash
            block = self._residents.table.value(dense_id)
            raise self._columns.facts.place(row).error(
                f"reply hash {block} has another parent elsewhere", "hashes must be chained"
            )
        return take_chains(self._residents.ptr, ids, rows)


def _optional(row: Row) -> tuple[bool, ...]:
    keys = (row.reply_hashes, row.completed_s, row.partial_page, row.prompt_id)
    return tuple(value is not None for value in keys)
