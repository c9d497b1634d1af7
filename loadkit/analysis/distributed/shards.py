"""The work on one shard, a file of the log: read and hash it, then keep what was chosen.

A shard's ids (8 B a block) must fit into a worker's memory, its rows' facts (100 B each) go to the
one who asks. An error is a value here: it travels between processes as plain fields.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from loadkit.analysis.sampling.choose import Chosen, TouchCounter
from loadkit.analysis.sampling.hashed_rows import (
    Kept,
    RowColumns,
    choose_touches,
    count_heavy,
    read_rows,
)
from loadkit.analysis.sampling.heavy import HeavyBlocks
from loadkit.core.errors import FormatError, InputError
from loadkit.core.tokenizer import Tokenizer, load_tokenizer
from loadkit.core.trace import IntArray
from loadkit.traces import weka
from loadkit.traces.reading import Reading
from loadkit.traces.registry import SESSION_ROWS, IdStream, detect, id_stream, other_than

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/{1,3}(?=[^/])")
_LOCAL_SCHEMES = ("file", "local")


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of the log and how to read it; `path` is a path or a URL that fsspec opens."""

    path: str
    number: int
    format: str = "auto"
    tokenizer: str | None = None
    block_size: int | None = None
    skip_bad: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """What was wrong with a shard."""

    what: str
    where: str | None
    remedy: str | None

    def error(self) -> InputError:
        """The same as an error to raise."""
        return InputError(self.what, where=self.where, remedy=self.remedy)


@dataclass(frozen=True, slots=True)
class Summary:
    """A shard without its ids. format None: it has no row."""

    format: str | None
    columns: RowColumns
    counter: TouchCounter
    fingerprint: str | None
    warnings: tuple[str, ...]


class Ids(NamedTuple):
    """The ids of a shard's rows, `num_blocks[k]` of them for the k-th row."""

    num_blocks: IntArray
    ids: IntArray


def hash_shard(shard: Shard) -> tuple[Summary | Failure, Ids]:
    """Read a shard to its end."""
    try:
        with _local(shard.path) as path:
            return _hashed(shard, path)
    except InputError as error:
        where = None if error.where is None else str(error.where)
        failure = Failure(error.what, where, error.remedy)
    return failure, Ids(np.zeros(0, np.int64), np.zeros(0, np.int64))


def count_in_shard(ids: Ids, heavy: IntArray) -> HeavyBlocks:
    """How a shard's heavy blocks follow one another."""
    return count_heavy(ids.num_blocks, _Held([ids.ids]), heavy)


def choose_in_shard(ids: Ids, chosen: Chosen) -> Kept:
    """What of a shard is kept."""
    return choose_touches(ids.num_blocks, _Held([ids.ids]), chosen)


def as_url(path: Path) -> str:
    """The path as typed: a Path folds the slashes of a URL."""
    match = _URL.match(str(path))
    if match is None or str(path).startswith("hf:"):
        return str(path)
    slashes = ":///" if match[1] in _LOCAL_SCHEMES else "://"
    return match[1] + slashes + str(path)[match.end() :]


class _Held:
    """Ids in memory (an IdStore)."""

    def __init__(self, parts: list[IntArray]):
        self.parts = parts

    def append(self, ids: IntArray) -> None:
        self.parts.append(ids)

    def all(self) -> IntArray:
        return np.concatenate([np.zeros(0, np.int64), *self.parts])

    def chunks(self, counts: IntArray) -> Iterator[IntArray]:
        ids = self.parts[0] if len(self.parts) == 1 else self.all()
        ends = np.cumsum(counts)
        for start, end in zip(ends - counts, ends, strict=True):
            yield ids[start:end]


def _hashed(shard: Shard, path: Path) -> tuple[Summary, Ids]:
    store, counter = _Held([]), TouchCounter(shard.seed)
    tokenizer = None if shard.tokenizer is None else _tokenizer(shard.tokenizer)
    name = _format(shard, path)
    if name is None:
        columns, warnings = RowColumns(16, shard.block_size), []
    else:
        reading = Reading([path], skip_bad=shard.skip_bad, recognise=other_than(name))
        stream = _apart(shard, id_stream(name, reading, tokenizer, shard.block_size), name)
        columns = read_rows(stream, reading, shard.block_size, store, counter)
        warnings = [*reading.warnings(), *stream.notes()]
    fingerprint = tokenizer.fingerprint if tokenizer is not None else None
    summary = Summary(name, columns, counter, fingerprint, tuple(warnings))
    return summary, Ids(np.array(columns.num_blocks, np.int64), store.all())


def _format(shard: Shard, path: Path) -> str | None:
    """The shard's format; None for a file without a row. InputError for what cannot be sharded."""
    reading = Reading([path], skip_bad=shard.skip_bad)
    if next(reading.rows(dict[str, Any]), None) is None:
        return None
    name = detect([path], skip_bad=shard.skip_bad) if shard.format == "auto" else shard.format
    if name == weka.NAME:
        raise InputError(
            "the ids of `weka` sessions are their own, not the log's",
            where=shard.path,
            remedy="write the log with analyze --hashed-out first, or leave out the cluster",
        )
    return name


def _apart(shard: Shard, stream: IdStream, name: str) -> IdStream:
    """Rows placed where the user knows them, and sessions that are numbers told from other shards'."""

    def rows() -> Iterator[Any]:
        path = Path(shard.path)
        for row in stream.rows:
            row.place = row.place._replace(path=path)
            if name in SESSION_ROWS:
                row.session = f"{shard.number}:{row.session}"
            yield row

    return replace(stream, rows=rows())


@lru_cache(maxsize=2)
def _tokenizer(name: str) -> Tokenizer:
    return load_tokenizer(name)


@contextmanager
def _local(path: str) -> Iterator[Path]:
    """The shard as a local file: itself, or a copy that is gone afterwards.

    InputError for what fsspec cannot open; rows of a copy are told by the URL.
    """
    if _URL.match(path) is None or path.startswith("hf:"):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="loadkit-") as folder:
        copy = Path(folder) / path.rsplit("/", 1)[-1]
        _fetch(path, copy)
        try:
            yield copy
        except FormatError as error:
            raise FormatError(
                error.what, path=path, line=error.line, remedy=error.remedy
            ) from error
        except InputError as error:
            raise InputError(error.what, where=path, remedy=error.remedy) from error


def _fetch(url: str, copy: Path) -> None:
    try:
        import fsspec
    except ImportError as error:
        raise InputError(
            "reading a URL needs the package `fsspec`",
            where=url,
            remedy="pip install 'loadkit-llm[ray]'",
        ) from error
    try:
        files, name = fsspec.core.url_to_fs(url)
        files.get_file(name, str(copy))
    except Exception as error:  # fsspec raises what its many file systems raise
        raise InputError(
            f"cannot be opened: {(str(error).splitlines() or [repr(error)])[0]}", where=url
        ) from error
