"""Logs as tables: Parquet files and Hugging Face datasets, a row a request, columns as in JSONL.

A table has a value in every column, so a missing key comes as null: nulls are dropped, inside
structs too, except for a message's `content`, which may be null on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loadkit.core.errors import InputError
from loadkit.traces.lines import Place, reading_errors

HUB_PREFIX = "hf:"
_ROWS_AT_ONCE = 1024

PlacedRow = tuple[Place, dict[str, Any]]


def is_hub(path: Path) -> bool:
    """Whether this names a dataset, `hf:NAME[:split]`, rather than a file."""
    return str(path).startswith(HUB_PREFIX)


def read_parquet(path: Path) -> Iterator[PlacedRow]:
    """Rows of a Parquet file with their numbers. InputError for a file that is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    with reading_errors(path):
        try:
            file = pq.ParquetFile(path)
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    yield Place(path, number), without_nulls(row)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise InputError(
                f"cannot be read as Parquet: {str(error).splitlines()[0] if str(error) else error!r}",
                where=path,
                remedy="is the file whole?",
            ) from error


def read_hub(path: Path) -> Iterator[PlacedRow]:
    """Rows of `hf:NAME[:split]`, streamed; the split is `train` unless named.

    NAME is a dataset on the hub or a folder of JSONL or Parquet files. InputError if `datasets` is
    not installed or has no such dataset or split.
    """
    name, split = _name_and_split(path)
    number = 0
    try:
        for row in _load(name, split, path):
            number += 1
            yield Place(path, number), without_nulls(dict(row))
    except InputError:
        raise
    except Exception as error:  # datasets raises what its many loaders raise
        raise InputError(
            f"the dataset cannot be read: {_first_line(error)}",
            where=path,
            remedy="hf:NAME or hf:NAME:split, a dataset that this machine can reach, or a folder",
        ) from error


def without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """The row without keys whose value is None, at any depth; `content` is kept."""
    return {
        key: _clean(value) for key, value in row.items() if value is not None or key == "content"
    }


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return without_nulls(value)
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        return [_clean(item) for item in value]
    return value


def _name_and_split(path: Path) -> tuple[str, str]:
    name, _, split = str(path).removeprefix(HUB_PREFIX).partition(":")
    if not name:
        raise InputError("no dataset named", where=path, remedy="hf:NAME or hf:NAME:split")
    return name, split or "train"


def _load(name: str, split: str, path: Path) -> Any:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise InputError(
            "reading a dataset needs the package `datasets`",
            where=path,
            remedy="pip install 'loadkit-llm[hub]'",
        ) from error
    return load_dataset(name, split=split, streaming=True)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [repr(error)])[0]
