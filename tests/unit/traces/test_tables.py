"""Parquet files and datasets as logs."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loadkit.core.errors import FormatError, InputError
from loadkit.traces import Progress, read_log
from loadkit.traces.tables import without_nulls

WriteLog = Callable[..., Path]
ROWS = [
    {"timestamp": 0, "input_length": 1000, "hash_ids": [7, 8], "session_id": "a"},
    {"timestamp": 9, "input_length": 1500, "hash_ids": [7, 8, 9], "session_id": "a"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_a_bad_row_of_a_parquet_file_is_named_by_its_number(tmp_path: Path) -> None:
    log = write(tmp_path / "log.parquet", [*ROWS, ROWS[0] | {"input_length": -1}])
    with pytest.raises(FormatError, match=r"log\.parquet:3: .*input_length"):
        read_log([log])


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e300])
def test_numbers_that_json_does_not_have_are_refused(tmp_path: Path, number: float) -> None:
    rows = [row | {"timestamp": float(row["timestamp"])} for row in ROWS]  # type: ignore[arg-type]
    log = write(tmp_path / "log.parquet", [*rows, rows[0] | {"timestamp": number}])
    with pytest.raises(FormatError, match=r"log\.parquet:3: "):
        read_log([log])


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 something else PAR1", b"{}\n"])
def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.parquet"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"log\.parquet: cannot be read"):
        read_log([path])


def test_a_parquet_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.parquet: cannot be read"):
        read_log([tmp_path / "nowhere.parquet"])


def test_nulls_are_missing_keys_except_a_messages_content() -> None:
    row = {"a": None, "m": [{"content": None, "tool_calls": None, "n": {"x": None, "y": 0}}]}
    assert without_nulls(row) == {"m": [{"content": None, "n": {"y": 0}}]}


def test_a_dataset_of_the_hub_is_read_like_a_file(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    folder = tmp_path / "set"
    folder.mkdir()
    for split, rows in {"train": ROWS, "test": ROWS[:1]}.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = read_log([Path(f"hf:{folder}")])
    assert whole.format == "mooncake"
    assert whole.trace.block_ids.tolist() == [0, 1, 0, 1, 2]
    assert read_log([Path(f"hf:{folder}:test")]).trace.num_requests == 1
    with pytest.raises(InputError, match="the dataset cannot be read"):
        read_log([Path(f"hf:{folder}:nosuch")])


@pytest.mark.parametrize("name", ["hf:", "hf::train"])
def test_a_dataset_needs_a_name(name: str) -> None:
    with pytest.raises(InputError, match="no dataset named"):
        read_log([Path(name)])


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(InputError, match=r"pip install 'loadkit-llm\[hub\]'"):
        read_log([Path("hf:some/thing")])


def test_progress_ends_at_the_whole_file(tmp_path: Path, write_log: WriteLog) -> None:
    told: list[Progress] = []
    read_log([write_log(*ROWS), write_log(*ROWS, name="b.jsonl")], on_progress=told.append)
    assert [progress.rows for progress in told] == [1, 2, 3, 4]
    shares = [progress.share or 0 for progress in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_progress_of_a_table_has_no_share(tmp_path: Path) -> None:
    told: list[Progress] = []
    read_log([write(tmp_path / "log.parquet", ROWS)], on_progress=told.append)
    assert [progress.share for progress in told] == [None, None]
