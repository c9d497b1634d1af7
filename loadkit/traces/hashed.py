"""loadkit's own log without text: salted, chained block hashes, one request a line.

Keys: timestamp_s, session, tenant, prompt_tokens, output_tokens, block_size, hashes (64-bit, full
blocks or with one for the partial tail). Hashes of different tenants are salted differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadkit.core.trace import Trace
from loadkit.traces.columns import Columns, trace_of, uniform_block_size
from loadkit.traces.lines import (
    BlockSize,
    Length,
    Place,
    Seconds,
    decode_rows,
    empty_log,
    read_lines,
)

NAME = "hashed"
DEFAULT_BLOCK_SIZE = 16


class Row(msgspec.Struct):
    """Unknown keys are skipped."""

    prompt_tokens: Length
    hashes: list[int]
    timestamp_s: Seconds | None = None
    output_tokens: Length | None = None
    session: str | int | None = None
    block_size: BlockSize | None = None


def matches(row: dict[str, Any]) -> bool:
    """Whether a log's first row looks like this format."""
    return "hashes" in row and "prompt_tokens" in row


def read(paths: Sequence[Path], *, block_size: int | None = None) -> Trace:
    """Read the files as one log; `block_size` must agree with the rows' own."""
    columns, sizes = Columns(), dict[int, Place]()
    for place, row in decode_rows(read_lines(paths), Row):
        columns.places.append(place)
        columns.arrival_s.append(row.timestamp_s)
        columns.prompt_tokens.append(row.prompt_tokens)
        columns.output_tokens.append(row.output_tokens)
        columns.session.append(row.session)
        columns.add_ids(place, row.hashes)
        if row.block_size is not None:
            sizes.setdefault(row.block_size, place)
    if not columns.places:
        raise empty_log(paths)
    return trace_of(columns, uniform_block_size(sizes, block_size, DEFAULT_BLOCK_SIZE))
