"""What the verbs that read a log share: reading it, printing and writing one JSON object."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadkit.core.errors import InputError

if TYPE_CHECKING:
    from loadkit.traces import Log


def read(logs: Sequence[Path], format: str, tokenizer: str | None, block_size: int | None) -> Log:
    """Read the log; the tokenizer is loaded only if one was named."""
    from loadkit.core.tokenizer import load_tokenizer
    from loadkit.traces import read_log

    served = None if tokenizer is None else load_tokenizer(tokenizer)
    return read_log(logs, format=format, tokenizer=served, block_size=block_size)


def as_json(data: Mapping[str, Any]) -> str:
    """One JSON object as text. ValueError for NaN, which JSON does not have."""
    return json.dumps(data, indent=2, allow_nan=False)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write whole or not at all: to a temporary name beside `path`, then renamed."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_text(as_json(data) + "\n", "utf-8")
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise InputError(f"cannot be written: {error.strerror}", where=path) from error
