"""What the verbs that read a log share: reading it, printing and writing one JSON object."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadkit.core.errors import InputError

if TYPE_CHECKING:
    from loadkit.traces import Log, Progress


def read(
    logs: Sequence[Path],
    format: str,
    tokenizer: str | None,
    block_size: int | None,
    *,
    strict: bool = False,
    skip_bad: bool = False,
) -> Log:
    """Read the log, with a progress bar on a terminal; the tokenizer is loaded only if named."""
    from loadkit.core.tokenizer import load_tokenizer
    from loadkit.corpora.public import tell_licences
    from loadkit.traces import read_log

    tell_licences(list(map(str, logs)))
    served = None if tokenizer is None else load_tokenizer(tokenizer)
    with progress_bar() as on_progress:
        return read_log(
            logs,
            format=format,
            tokenizer=served,
            block_size=block_size,
            strict=strict,
            skip_bad=skip_bad,
            on_progress=on_progress,
        )


def capacity_text(capacity: str | None, config: Path | None, kv_dtype: str | None) -> str | None:
    """The capacities as typed, with sizes in bytes as tokens of the model that `config` describes."""
    from loadkit.core.kv_size import read_bytes_per_token
    from loadkit.core.units import bytes_as_tokens

    if config is None:
        if kv_dtype is not None:
            raise InputError(
                "says nothing by itself",
                where="--kv-dtype",
                remedy="add --model-config, and sizes in --capacity as 40GiB",
            )
        return capacity
    return bytes_as_tokens(capacity or "", read_bytes_per_token(config, kv_dtype)) or None


@contextmanager
def progress_bar() -> Iterator[Callable[[Progress], None] | None]:
    """A bar on stderr while reading, gone afterwards; None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading the log", total=None)

        def show(progress: Progress) -> None:
            total = None if progress.share is None else 1.0
            bar.update(
                task,
                total=total,
                completed=progress.share or 0.0,
                description=f"{progress.rows:,} rows read",
            )

        yield show


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
