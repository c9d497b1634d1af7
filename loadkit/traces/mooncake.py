"""Mooncake traces: a request a line with lengths in tokens, time in ms and chained block ids.

The published traces have 512-token blocks and an id for the partial last block too (ceil).
Source of the format: kvcache-ai/Mooncake, FAST25-release/traces.
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
    Milliseconds,
    Place,
    decode_rows,
    empty_log,
    read_lines,
)

NAME = "mooncake"
DEFAULT_BLOCK_SIZE = 512


class Row(msgspec.Struct):
    """Unknown keys are skipped: extensions carry text and payloads that the ids stand for."""

    input_length: Length
    hash_ids: list[int]
    timestamp: Milliseconds | None = None
    output_length: Length | None = None
    session_id: str | int | None = None
    block_size: BlockSize | None = None


def matches(row: dict[str, Any]) -> bool:
    """Whether a log's first row looks like this format."""
    return "hash_ids" in row and "input_length" in row and "chat_id" not in row


def read(paths: Sequence[Path], *, block_size: int | None = None) -> Trace:
    """Read the files as one log. `block_size` overrides the default of 512, not the rows' own."""
    columns, sizes = Columns(), dict[int, Place]()
    for place, row in decode_rows(read_lines(paths), Row):
        columns.places.append(place)
        columns.arrival_s.append(None if row.timestamp is None else row.timestamp / 1000)
        columns.prompt_tokens.append(row.input_length)
        columns.output_tokens.append(row.output_length)
        columns.session.append(row.session_id)
        columns.add_ids(place, row.hash_ids)
        if row.block_size is not None:
            sizes.setdefault(row.block_size, place)
    if not columns.places:
        raise empty_log(paths)
    return trace_of(columns, uniform_block_size(sizes, block_size, DEFAULT_BLOCK_SIZE))
