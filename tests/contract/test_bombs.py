"""Small files that unpack into large ones, and rows that nest without end: refused by line, soon,
and in bounded memory."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard
from log_samples import rows_of

from loadkit.core.errors import InputError
from loadkit.core.tokenizer import Tokenizer
from loadkit.traces import FORMATS, read_log

GIB = 1 << 30
MEMBER = 1 << 24
READ_ALL = """
import json, sys
from pathlib import Path
from loadkit.core.errors import InputError
from loadkit.traces import read_log
said = []
for path in sys.argv[1:]:
    try:
        read_log([Path(path)])
    except InputError as error:
        said.append(str(error))
status = Path("/proc/self/status").read_text()  # getrusage would say what our parent had
most_kib = int(status.split("VmHWM:")[1].split()[0])
print(json.dumps([said, most_kib]))
"""


def bomb(path: Path, unit: bytes) -> Path:
    """A gibibyte of `unit` over and over, in a file of about a mebibyte or less."""
    content = unit * (MEMBER // len(unit))
    pack = gzip.compress if path.suffix == ".gz" else zstandard.ZstdCompressor().compress
    path.write_bytes(pack(content) * (GIB // MEMBER))
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory in /proc")
def test_a_gibibyte_out_of_a_small_file_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    """The longest line that is taken has 128 MiB, and growing it takes as much again."""
    units = {"zeros": b"\0", "spaces": b" ", "lists": b"[", "objects": b'{"a":'}
    files = [bomb(tmp_path / f"{name}.jsonl.gz", unit) for name, unit in units.items()]
    files += [bomb(tmp_path / "zeros.jsonl.zst", b"\0")]
    assert max(file.stat().st_size for file in files) < 2_500_000
    command = [sys.executable, "-c", READ_ALL, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said, most_kib = json.loads(done.stdout)
    told = "the line is longer than 128 MiB (one JSON object a line is expected)"
    assert said == [f"{file}:1: {told}" for file in files]
    assert most_kib < 700 * 1024


@pytest.mark.parametrize("name", ["log.jsonl.gz", "log.jsonl.zst"])
def test_empty_lines_without_end_are_refused_soon(tmp_path: Path, name: str) -> None:
    path = bomb(tmp_path / name, b"\n")
    with pytest.raises(InputError, match=r":100001: 100,000 empty lines in a row"):
        read_log([path])


def deeper(row: Any, depth: int = 50_000) -> str:
    """The row's first list or object, or else its first value, as deep nesting."""
    nested = [key for key, value in row.items() if isinstance(value, list | dict)]
    key = (nested or list(row))[0]
    text = json.dumps(row | {key: "HERE"})
    return text.replace('"HERE"', "[" * depth + "]" * depth)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("number", [0, 1])
def test_endless_nesting_is_refused_by_line(
    tmp_path: Path, letters: Tokenizer, format: str, number: int
) -> None:
    """As the first row, where formats are told apart, and after a row that fits."""
    path = tmp_path / "log.jsonl"
    good = json.dumps(rows_of(format)[0])
    lines = [deeper(rows_of(format)[0])]
    path.write_text("\n".join([good][:number] + lines) + "\n")
    for asked in ("auto", format):
        with pytest.raises(InputError) as caught:
            read_log([path], format=asked, tokenizer=letters)
        assert str(path) in str(caught.value)
