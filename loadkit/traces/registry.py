"""Which reader a log needs: detected from its first row, or named by the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadkit.core.errors import FormatError, InputError
from loadkit.core.tokenizer import Tokenizer
from loadkit.core.trace import Trace
from loadkit.traces import hashed, mooncake, openai
from loadkit.traces.lines import first_row

# Keys that give away a format which this version does not read yet.
_NOT_YET = {
    "bailian": {"chat_id", "hash_ids"},
    "weka": {"hash_id_scope", "requests"},
    "sharegpt": {"conversations"},
    "openai-batch": {"custom_id", "body"},
    "otel": {"gen_ai.input.messages"},
}
FORMATS = (mooncake.NAME, openai.NAME, hashed.NAME)


@dataclass(frozen=True, slots=True)
class Log:
    """A log as read. tokenizer_fingerprint is None where the log came as ids."""

    trace: Trace
    format: str
    paths: tuple[Path, ...]
    tokenizer_fingerprint: str | None = None


def read_log(
    paths: Sequence[Path],
    *,
    format: str = "auto",
    tokenizer: Tokenizer | None = None,
    block_size: int | None = None,
) -> Log:
    """Read files as one log, in the order given.

    block_size None: what the log says, else the format's own (16 for text). Raises InputError
    (FormatError with file and line for a row) for everything a user can correct.
    """
    if block_size is not None and block_size < 1:
        raise InputError(f"block size {block_size} is below 1", where="--block-size")
    name = detect(paths) if format == "auto" else _known(format)
    if name == openai.NAME:
        trace = openai.read(paths, block_size=block_size, tokenizer=tokenizer)
        return Log(trace, name, tuple(paths), tokenizer.fingerprint if tokenizer else None)
    reader = {mooncake.NAME: mooncake.read, hashed.NAME: hashed.read}[name]
    return Log(reader(paths, block_size=block_size), name, tuple(paths))


def read_trace(
    paths: Sequence[Path],
    *,
    format: str = "auto",
    tokenizer: Tokenizer | None = None,
    block_size: int | None = None,
) -> Trace:
    """`read_log` for callers that need the Trace alone."""
    return read_log(paths, format=format, tokenizer=tokenizer, block_size=block_size).trace


def detect(paths: Sequence[Path]) -> str:
    """Name of the format that the first row fits. FormatError names the keys if none does."""
    place, row = first_row(paths)
    for module in (hashed, mooncake, openai):
        if module.matches(row):
            return str(module.NAME)
    remedy = f"known formats: {', '.join(FORMATS)}; --format overrides the detection"
    raise FormatError(_unknown(row), path=place.path, line=place.number, remedy=remedy)


def _unknown(row: dict[str, Any]) -> str:
    for name, telling in _NOT_YET.items():
        if telling <= row.keys():
            return f"this looks like `{name}`, which this version does not read yet"
    keys = ", ".join(sorted(map(str, row))[:8])
    return f"unknown log format with the keys: {keys or 'none'}"


def _known(name: str) -> str:
    if name not in FORMATS:
        raise InputError(
            f"unknown format {name!r}", where="--format", remedy=f"one of {', '.join(FORMATS)}"
        )
    return name
