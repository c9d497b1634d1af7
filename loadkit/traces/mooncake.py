"""Mooncake traces: a request a line with lengths in tokens, time in ms and chained block ids.

The published traces have 512-token blocks and an id for the partial last block too (ceil).
Source of the format: kvcache-ai/Mooncake, FAST25-release/traces.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec

from loadkit.core.trace import Trace
from loadkit.traces.columns import Columns
from loadkit.traces.id_rows import IdRow
from loadkit.traces.reading import BlockSize, Length, Milliseconds, Name, Reading

NAME = "mooncake"
DEFAULT_BLOCK_SIZE = 512


class Row(msgspec.Struct):
    """Extensions carry text and payloads that the ids stand for; they are skipped."""

    OF_IDS: ClassVar[bool] = True
    NO_TEXT: ClassVar[frozenset[str]] = frozenset(
        [
            "delay",
            "text_input",
            "text_output",
            "messages",
            "prompt",
            "tools",
            "payload",
            "extra",
            "type",
            "turn",
            "output",
            "priority",
        ]
    )

    input_length: Length
    hash_ids: list[int]
    timestamp: Milliseconds | None = None
    output_length: Length | None = None
    session_id: Name | None = None
    request_id: Name | None = None
    block_size: BlockSize | None = None
    chat_id: Name | None = None


def matches(row: dict[str, Any]) -> bool:
    """Whether a log's first row looks like this format."""
    return "hash_ids" in row and "input_length" in row and "chat_id" not in row


def read(reading: Reading, block_size: int | None = None) -> Trace:
    """Read the log. `block_size` overrides the default of 512, not the rows' own."""
    columns = Columns(block_size, DEFAULT_BLOCK_SIZE)
    for row in id_rows(reading):
        with reading.row():
            columns.add(row)
    return columns.trace(reading)


def id_rows(reading: Reading) -> Iterator[IdRow]:
    """The log's requests one by one."""
    for place, row in reading.rows(Row):
        with reading.row():
            if row.chat_id is not None:
                raise place.error("the row has a chat_id: it looks like `bailian`, in seconds")
            yield IdRow(
                place,
                row.hash_ids,
                row.input_length,
                arrival_s=None if row.timestamp is None else row.timestamp / 1000,
                output_tokens=row.output_length,
                session=row.session_id,
                request_id=row.request_id,
                block_size=row.block_size,
            )
