"""What every log format promises, over every format: the same requests give the same analysis."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loadkit.analysis import analyze
from loadkit.core.errors import FormatError, InputError
from loadkit.traces import FORMATS, read_log

BLOCK_SIZE = 4
Row = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """One request as every format can say it: a chain of full blocks and a partial tail."""

    blocks: Sequence[int]
    session: str
    at_s: float


SAMPLES = (
    Sample([1, 2], "a", 0.0),
    Sample([1, 3], "b", 1.0),
    Sample([1, 2, 4], "a", 2.5),
    Sample([1, 3], "c", 4.0),
)


def chained(blocks: Sequence[int]) -> list[int]:
    """Ids that stand for whole prefixes: the digits of the blocks so far."""
    return [int("".join(map(str, blocks[: end + 1]))) for end in range(len(blocks))]


def mooncake_row(sample: Sample) -> Row:
    return {
        "timestamp": sample.at_s * 1000,
        "input_length": BLOCK_SIZE * len(sample.blocks) + 1,
        "hash_ids": chained(sample.blocks),
        "session_id": sample.session,
        "block_size": BLOCK_SIZE,
    }


def hashed_row(sample: Sample) -> Row:
    return {
        "timestamp_s": sample.at_s,
        "prompt_tokens": BLOCK_SIZE * len(sample.blocks) + 1,
        "hashes": chained(sample.blocks),
        "session": sample.session,
        "block_size": BLOCK_SIZE,
    }


def openai_row(sample: Sample) -> Row:
    return {
        "timestamp": sample.at_s,
        "prompt": [token for block in sample.blocks for token in [block] * BLOCK_SIZE] + [9],
        "session_id": sample.session,
    }


ROWS: dict[str, Callable[[Sample], Row]] = {
    "mooncake": mooncake_row,
    "hashed": hashed_row,
    "openai": openai_row,
}


def write(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(params=FORMATS)
def format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rows(format: str) -> list[Row]:
    return [ROWS[format](sample) for sample in SAMPLES]


def test_a_log_is_recognised_and_gives_the_same_answer_in_every_format(
    format: str, rows: list[Row], tmp_path: Path
) -> None:
    log = read_log([write(tmp_path / "log.jsonl", rows)], block_size=BLOCK_SIZE)
    assert log.format == format
    infinite = analyze(log.trace).infinite
    # Prompts of 9, 9, 13 and 9 tokens: 1 shared block, 2 of an earlier turn, a replay of 2 blocks.
    assert log.trace.prompt_tokens.tolist() == [9, 9, 13, 9]
    assert infinite.shared == 4 / 40
    assert infinite.continuation == 8 / 40
    assert infinite.replay_cross_session == 8 / 40
    assert infinite.hit_rate == 20 / 40
    assert infinite.block_hit_rate == 1 - 4 / 9
    assert infinite.organic_hit_rate == 12 / 31


def test_rows_out_of_order_are_sorted_with_a_warning(rows: list[Row], tmp_path: Path) -> None:
    ordered = read_log([write(tmp_path / "a.jsonl", rows)], block_size=BLOCK_SIZE).trace
    shuffled = read_log([write(tmp_path / "b.jsonl", rows[::-1])], block_size=BLOCK_SIZE).trace
    assert any("backwards" in warning for warning in shuffled.warnings)
    assert not any("backwards" in warning for warning in ordered.warnings)
    assert analyze(shuffled).infinite == analyze(ordered).infinite
    assert shuffled.arrival_s is not None
    assert shuffled.arrival_s.tolist() == [0.0, 1.0, 2.5, 4.0]


def test_sessions_are_inferred_when_no_row_has_one(rows: list[Row], tmp_path: Path) -> None:
    bare = [{k: v for k, v in row.items() if not k.startswith("session")} for row in rows]
    trace = read_log([write(tmp_path / "log.jsonl", bare)], block_size=BLOCK_SIZE).trace
    assert trace.sessions_inferred
    assert trace.session.tolist() == [0, 1, 0, 1]
    assert any("inferred" in warning for warning in trace.warnings)


def test_a_truncated_last_line_is_refused_by_line(
    format: str, rows: list[Row], tmp_path: Path
) -> None:
    path = write(tmp_path / "log.jsonl", rows)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError, match=r"log\.jsonl:4: the last line is cut off"):
        read_log([path], format=format, block_size=BLOCK_SIZE)


@pytest.mark.parametrize("junk", ["hello", "[]", "3", "null", '"x"', "{}", "\x00"])
def test_a_line_that_is_no_request_is_refused_by_line(
    format: str, rows: list[Row], tmp_path: Path, junk: str
) -> None:
    path = write(tmp_path / "log.jsonl", rows)
    path.write_text(path.read_text() + junk + "\n")
    with pytest.raises(FormatError, match=r"log\.jsonl:5: "):
        read_log([path], format=format, block_size=BLOCK_SIZE)


def test_an_empty_log_is_refused(format: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no request"):
        read_log([write(tmp_path / "log.jsonl", [])], format=format)


def test_a_log_that_another_format_fits_is_not_misread(
    format: str, rows: list[Row], tmp_path: Path
) -> None:
    path = write(tmp_path / "log.jsonl", rows)
    for other in set(FORMATS) - {format}:
        with pytest.raises(FormatError, match=r"log\.jsonl:1: "):
            read_log([path], format=other)
