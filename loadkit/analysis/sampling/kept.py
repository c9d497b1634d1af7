"""A log in order of arrival with the blocks that were kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile

import numpy as np
import numpy.typing as npt

from loadkit.analysis.sampling.choose import Chosen, TouchCounter
from loadkit.analysis.sampling.hashed_rows import (
    Kept,
    RowColumns,
    SpillFile,
    choose_touches,
    count_heavy,
    read_rows,
)
from loadkit.core.csr import places, pointers
from loadkit.core.tokenizer import Tokenizer
from loadkit.core.trace import UNKNOWN, FloatArray, IntArray
from loadkit.traces.bailian import Links
from loadkit.traces.reading import Reading
from loadkit.traces.registry import id_stream
from loadkit.traces.rows import order_by_arrival
from loadkit.traces.sessions import dense_sessions

NO_SESSIONS = (
    "no session ids: what continues a session counts as shared, and its repeats as another's"
)
NO_REPLIES = "replies in the log are left out: a sample is of prompts only"


@dataclass(frozen=True, slots=True)
class KeptTouches:
    """A log in order of arrival with its chosen blocks; n = requests, k = kept touches."""

    block_size: int
    prompt_tokens: IntArray  # (n,)
    num_blocks: IntArray  # (n,) blocks of the whole chain
    prompt_key: IntArray  # (n,) equal for identical whole prompts
    session: IntArray  # (n,) dense
    arrival_s: FloatArray | None
    ptr: IntArray  # (n + 1,)
    ids: IntArray  # (k,) as logged; of a node of heavy blocks its first one's
    weight: npt.NDArray[np.int32]  # (k,) blocks: 1 for a light one
    depth: npt.NDArray[np.int32]  # (k,) blocks above it in its chain
    group: npt.NDArray[np.int8]  # (k,) -1 heavy, else the group of a light block
    warnings: tuple[str, ...]


def keep(
    reading: Reading,
    format: str,
    rate: float,
    num_groups: int,
    block_size: int | None = None,
    seed: int = 0,
    tokenizer: Tokenizer | None = None,
) -> KeptTouches:
    """Read a log once and keep a sample of its blocks; the ids wait in a temporary file meanwhile.

    InputError without a request, and for text without a tokenizer.
    """
    counter = TouchCounter(seed)
    stream = id_stream(format, reading, tokenizer, block_size)
    with TemporaryFile(prefix="loadkit-") as file:
        store = SpillFile(file)
        columns = read_rows(stream, reading, block_size, store, counter)
        if not len(columns):
            raise reading.empty()
        num_blocks = np.array(columns.num_blocks, np.int64)
        heavy = count_heavy(num_blocks, store, counter.heavy(rate))
        chosen = Chosen(rate, heavy.heavy, num_groups, seed, heavy.weights())
        touches = choose_touches(num_blocks, store, chosen)
    return in_order(columns, touches, [*reading.warnings(), *stream.notes()])


def in_order(columns: RowColumns, touches: Kept, notes: Sequence[str]) -> KeptTouches:
    """Rows and what was kept of them, sorted by time, with sessions."""
    arrival_s, order, out_of_time = order_by_arrival(columns.facts)
    rows = np.arange(len(columns)) if order is None else order
    counts = touches.counts
    touch = places(pointers(counts)[rows], counts[rows])
    session, more = _sessions(columns, rows)
    return KeptTouches(
        block_size=columns.block_size or 1,
        prompt_tokens=np.array(columns.prompt_tokens, np.int64)[rows],
        num_blocks=np.array(columns.num_blocks, np.int64)[rows],
        prompt_key=_prompt_keys(columns)[rows],
        session=session,
        arrival_s=arrival_s,
        ptr=pointers(counts[rows]),
        ids=touches.ids[touch],
        weight=touches.weight[touch],
        depth=touches.depth[touch],
        group=touches.group[touch],
        warnings=(
            *notes,
            *columns.facts.repeated_ids(),
            *(out_of_time if columns.one_clock or arrival_s is None else ()),
            *more,
            *([NO_REPLIES] if columns.replies else []),
        ),
    )


def _prompt_keys(columns: RowColumns) -> IntArray:
    """Dense keys; a prompt that nothing is known of is equal to no other."""
    keys = np.unique(np.array(columns.prompt_key, np.int64), return_inverse=True)[1].reshape(-1)
    alone = np.array(columns.keyless, np.int64)
    keys[alone] = len(keys) + np.arange(len(alone))
    return keys


def _sessions(columns: RowColumns, rows: IntArray) -> tuple[IntArray, list[str]]:
    """Dense sessions of the rows in their new order, and warnings."""
    codes, notes = columns.facts.session_codes(), []
    if columns.links:
        links = Links()
        for chat, parent in columns.links:
            links.add(chat, parent)
        codes, notes = links.sessions(columns.facts.place), links.warnings()
    codes = codes[rows]
    if np.all(codes == UNKNOWN):
        return np.arange(len(codes)), [NO_SESSIONS]
    return dense_sessions(codes)[0], notes
