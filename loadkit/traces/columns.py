"""Logs that carry block ids: rows to columns, the checks every such log must pass, the Trace."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from loadkit.core.trace import IntArray, Trace
from loadkit.traces.id_rows import IdRow, as_signed, check_count
from loadkit.traces.interning import ChainStore, IdTable, dense_by_appearance, renumber, take_chains
from loadkit.traces.lines import Place
from loadkit.traces.reading import Reading
from loadkit.traces.rows import RowFacts, order_by_arrival
from loadkit.traces.sessions import resolve_sessions

_TWO_PARENTS = (
    "the ids are no chained prefix hashes; this file was generated or its ids are per-block hashes"
)


class Columns:
    """Rows as they are read, in arrays. Each is checked as it comes; their chains at the end."""

    def __init__(self, asked_block_size: int | None, default: int, *, chained: bool = True):
        """The block size is the one asked for, else the first row's own, else the default."""
        self._asked, self._default = asked_block_size, default
        self._size: int | None = None
        self.facts = RowFacts()
        self.prompt_tokens = array("q")
        # Ids of replies are in the same table, and numbered with the prompts' later.
        self.has_replies = False
        self.order: IntArray | None = None  # that sorted the rows by time; None: as read
        self.chains = ChainStore(IdTable(chained=chained))

    def __len__(self) -> int:
        return len(self.prompt_tokens)

    @property
    def block_size(self) -> int:
        return self._size or self._asked or self._default

    def add(self, row: IdRow) -> None:
        """Append a row. FormatError, and nothing appended, if it does not fit the rows before."""
        size = self._checked_size(row.place, row.block_size)
        check_count(row.place, row.prompt_tokens, len(row.ids), size)
        signed = as_signed(row.place, row.ids)
        self.facts.add(
            row.place,
            arrival_s=row.arrival_s,
            output_tokens=row.output_tokens,
            session=row.session,
            request_id=row.request_id,
        )
        self._size = size
        self.prompt_tokens.append(row.prompt_tokens)
        self.chains.add(signed)

    def trace(
        self, reading: Reading, notes: Sequence[str] = (), *, one_clock: bool = True
    ) -> Trace:
        """The Trace, in order of arrival. InputError without a row, FormatError for two parents.

        notes: warnings of the format. one_clock False: rows out of order are no fault.
        """
        if not len(self):
            raise reading.empty()
        ids, ptr = self.chains.ids(), self.chains.ptr
        self._check_single_parent(ids, ptr)
        if not self.has_replies:
            self.chains.table.release()
        prompt_tokens = np.array(self.prompt_tokens, np.int64)
        arrival_s, order, warnings = order_by_arrival(self.facts)
        self.order = order
        if order is not None:
            ptr, ids = take_chains(ptr, ids, order)
            prompt_tokens = prompt_tokens[order]
        if order is not None and not self.has_replies:
            renumber(self.chains.table.num_ids, ids)
        full_blocks = np.minimum(np.diff(ptr), prompt_tokens // self.block_size)
        names = self.facts.session_codes(order)
        session, inferred, more = resolve_sessions(names, ptr, ids, full_blocks)
        return Trace(
            block_size=self.block_size,
            prompt_tokens=prompt_tokens,
            block_ptr=ptr,
            block_ids=ids,
            prompt_key=_prompt_keys(ptr, ids, prompt_tokens),
            session=session,
            num_sessions=int(session.max(initial=-1)) + 1,
            sessions_inferred=inferred,
            output_tokens=self.facts.outputs(order),
            arrival_s=arrival_s,
            places=self.facts.places(order),
            warnings=(
                *reading.warnings(),
                *notes,
                *self.facts.repeated_ids(),
                *(warnings if one_clock else ()),
                *more,
            ),
        )

    def _checked_size(self, place: Place, named: int | None) -> int:
        """The block size of the log so far, which the row must not contradict."""
        size = self._size or self._asked or named or self._default
        if named is not None and named != size:
            before = f"asked for {self._asked}" if self._asked else f"earlier ones {size}"
            raise place.error(
                f"the row has block_size {named}, {before}",
                "rates do not carry across block sizes: analyze one block size at a time",
            )
        return size

    def _check_single_parent(self, ids: IntArray, ptr: IntArray) -> None:
        """Refuse ids with two parents; a row that repeats an id always has one such."""
        clash = self.chains.clash
        if clash is None:
            return
        row, dense_id = clash
        first = int(np.searchsorted(ptr, int(np.argmax(ids == dense_id)), side="right")) - 1
        here, before = self.facts.place(row), self.facts.place(first)
        block = self.chains.table.value(dense_id)
        if row == first:
            raise here.error(f"block id {block} occurs twice in the row", _TWO_PARENTS)
        raise here.error(f"block id {block} has another parent than in {before}", _TWO_PARENTS)


def _prompt_keys(ptr: IntArray, ids: IntArray, prompt_tokens: IntArray) -> IntArray:
    """Dense key of (last id, length): ids are chained, so the last one stands for all.

    A prompt without any id is known to be equal to no other.
    """
    last = -1 - np.arange(len(prompt_tokens))
    some = np.diff(ptr) > 0
    last[some] = ids[ptr[1:][some] - 1]
    pairs = np.stack([last, prompt_tokens], axis=1)
    return dense_by_appearance(np.unique(pairs, axis=0, return_inverse=True)[1])
