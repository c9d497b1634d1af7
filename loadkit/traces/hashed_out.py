"""Write a Trace as loadkit's own log: no text, no names, ids numbered anew in order of appearance.

A number says nothing but which requests have a prefix in common. With an outside key the ids of
common blocks are keyed hashes, see `loadkit.traces.keyed`. Not written: the texts of the append-only audit, what was wrong
with the original file (its warnings), and sessions that were inferred, which are inferred again.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from loadkit.core.errors import InputError
from loadkit.core.trace import UNKNOWN, IntArray, Trace
from loadkit.traces.interning import dense_by_appearance
from loadkit.traces.keyed import check_linkable, first_number, written_ids


def write_hashed(trace: Trace, path: Path, key: bytes | None = None) -> None:
    """Write the log, whole or not at all; gzipped if `path` ends in .gz.

    Reading it gives the same analysis, number for number. InputError if it cannot be written, or
    has no hashes for the key (`keyed.read_key`).
    """
    if key is not None:
        check_linkable(trace)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _create(unfinished, path.suffix == ".gz") as file:
            for row in hashed_rows(trace, key):
                file.write(msgspec.json.encode(row) + b"\n")
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise InputError(f"cannot be written: {error.strerror}", where=path) from error


def hashed_rows(trace: Trace, key: bytes | None = None) -> Iterator[dict[str, Any]]:
    """The rows of the log in order of arrival, without keys for what the trace does not know."""
    first = first_number(key)
    number = written_ids(trace, key, first)
    prompt_key = first + dense_by_appearance(trace.prompt_key)
    session = first + dense_by_appearance(trace.session)
    tenant = None if trace.tenant is None else first + trace.tenant
    for row in range(trace.num_requests):
        hashes = number[_chain(trace.block_ptr, trace.block_ids, row)].tolist()
        known: dict[str, Any] = {
            "timestamp_s": _value(trace.arrival_s, row),
            "session": None if trace.sessions_inferred else int(session[row]),
            "tenant": _value(tenant, row),
            "output_tokens": _output(trace, row),
            "completed_s": _value(trace.completed_s, row),
            "partial_page": _value(trace.partial_page, row),
            "reply_hashes": _reply_hashes(trace, row, number),
        }
        yield {
            "prompt_tokens": int(trace.prompt_tokens[row]),
            "block_size": trace.block_size,
            "hashes": hashes,
            "prompt_id": int(prompt_key[row]),
            **{key: value for key, value in known.items() if value is not None},
        }


def _reply_hashes(trace: Trace, row: int, number: IntArray) -> list[int] | None:
    """What the resident chain has after the prompt's full blocks; None if replies are unknown."""
    if trace.resident_ptr is None or trace.resident_ids is None:
        return None
    full = int(trace.prompt_tokens[row]) // trace.block_size
    chain = number[_chain(trace.resident_ptr, trace.resident_ids, row)]
    return cast(list[int], chain[full:].tolist())


def _chain(ptr: IntArray, ids: IntArray, row: int) -> IntArray:
    return ids[ptr[row] : ptr[row + 1]]


def _output(trace: Trace, row: int) -> int | None:
    tokens = int(trace.output_tokens[row])
    return None if tokens == UNKNOWN else tokens


def _value(column: Any, row: int) -> Any:
    return None if column is None else column[row].item()


def _create(path: Path, compress: bool) -> BinaryIO:
    if compress:
        return cast(BinaryIO, gzip.open(path, "wb"))
    return path.open("wb")
