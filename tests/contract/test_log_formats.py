"""What every log format promises, over every format: the same requests give the same analysis."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from log_samples import ANSWERS, BLOCK_SIZE, PER_REQUEST, Row, rows_of, write

from loadkit.analysis import analyze
from loadkit.core.errors import FormatError, InputError
from loadkit.core.tokenizer import Tokenizer
from loadkit.core.trace import Trace
from loadkit.traces import FORMATS, Log, read_log

ReadRows = Callable[..., Log]


@pytest.fixture(params=FORMATS)
def format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rows(format: str) -> list[Row]:
    return rows_of(format)


@pytest.fixture
def read(letters: Tokenizer) -> ReadRows:
    def read_with_letters(*paths: Path, **options: Any) -> Log:
        return read_log(paths, block_size=BLOCK_SIZE, tokenizer=letters, **options)

    return read_with_letters


def figures(trace: Trace) -> dict[str, Any]:
    """The whole analysis but for its warnings."""
    data = analyze(trace, [1, 2, None]).to_dict()
    return {key: value for key, value in data.items() if key != "warnings"}


def test_a_log_is_recognised_and_gives_the_answer_worked_out_by_hand(
    format: str, rows: list[Row], tmp_path: Path, read: ReadRows
) -> None:
    log = read(write(tmp_path / "log.jsonl", rows))
    assert log.format == format
    answer, infinite = ANSWERS[format], analyze(log.trace).infinite
    total = sum(answer.prompt_tokens)
    assert log.trace.prompt_tokens.tolist() == list(answer.prompt_tokens)
    assert infinite.shared == answer.shared / total
    assert infinite.continuation == answer.continuation / total
    assert infinite.replay_same_session == answer.replay_same_session / total
    assert infinite.replay_cross_session == answer.replay_cross_session / total


@pytest.mark.parametrize("packing", ["gz", "zst", "array", "parquet"])
def test_the_packing_of_a_log_changes_nothing(
    format: str, rows: list[Row], tmp_path: Path, read: ReadRows, packing: str
) -> None:
    plain = write(tmp_path / "plain.jsonl", rows)
    packed = read(pack(plain, rows, packing))
    assert packed.format == format
    assert figures(packed.trace) == figures(read(plain).trace)


def pack(plain: Path, rows: list[Row], packing: str) -> Path:
    path = plain.with_name({"array": "log.json"}.get(packing, f"log.{packing}"))
    if packing == "gz":
        path.write_bytes(gzip.compress(plain.read_bytes()))
    elif packing == "zst":
        zstandard = pytest.importorskip("zstandard")
        path.write_bytes(zstandard.compress(plain.read_bytes()))
    elif packing == "array":
        path.write_text(json.dumps(rows, indent=1))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_files_are_read_as_one_log(
    format: str, rows: list[Row], tmp_path: Path, read: ReadRows
) -> None:
    whole = read(write(tmp_path / "whole.jsonl", rows))
    parts = [write(tmp_path / "1.jsonl", rows[:1]), write(tmp_path / "2.jsonl", rows[1:])]
    assert figures(read(*parts).trace) == figures(whole.trace)


@pytest.mark.parametrize("format", sorted(set(PER_REQUEST) - {"openai-batch"}))
def test_rows_out_of_order_are_sorted_with_a_warning(
    rows: list[Row], tmp_path: Path, read: ReadRows
) -> None:
    ordered = read(write(tmp_path / "a.jsonl", rows)).trace
    shuffled = read(write(tmp_path / "b.jsonl", rows[::-1])).trace
    assert any("backwards" in warning for warning in shuffled.warnings)
    assert not any("backwards" in warning for warning in ordered.warnings)
    assert analyze(shuffled).infinite == analyze(ordered).infinite
    assert shuffled.arrival_s is not None
    assert shuffled.arrival_s.tolist() == [0.0, 1.0, 2.5, 4.0]


@pytest.mark.parametrize("format", sorted(set(PER_REQUEST) - {"openai-batch", "bailian"}))
def test_sessions_are_inferred_when_no_row_has_one(
    rows: list[Row], tmp_path: Path, read: ReadRows
) -> None:
    names = ("session", "session_id", "gen_ai.conversation.id")
    bare = [{key: value for key, value in row.items() if key not in names} for row in rows]
    trace = read(write(tmp_path / "log.jsonl", bare)).trace
    assert trace.sessions_inferred
    assert trace.session.tolist() == [0, 1, 0, 1]
    assert any("inferred" in warning for warning in trace.warnings)


def test_one_session_is_read(format: str, rows: list[Row], tmp_path: Path, read: ReadRows) -> None:
    trace = read(write(tmp_path / "log.jsonl", rows[:1])).trace
    assert trace.num_sessions == 1
    analysis = analyze(trace)
    assert analysis.infinite.shared == 0
    assert analysis.infinite.replay_cross_session == 0


def test_a_truncated_last_line_is_refused_by_line(
    format: str, rows: list[Row], tmp_path: Path, read: ReadRows
) -> None:
    path = write(tmp_path / "log.jsonl", rows)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError, match=rf"log\.jsonl:{len(rows)}: the last line is cut off"):
        read(path, format=format)


JUNK = ["hello", "[]", "3", "null", '"x"', "{}", "\x00"]


@pytest.mark.parametrize("junk", JUNK)
def test_a_line_that_is_no_request_is_refused_by_line(
    format: str, rows: list[Row], tmp_path: Path, read: ReadRows, junk: str
) -> None:
    path = write(tmp_path / "log.jsonl", rows)
    path.write_text(path.read_text() + junk + "\n")
    with pytest.raises(FormatError, match=rf"log\.jsonl:{len(rows) + 1}: "):
        read(path, format=format)


def test_bad_rows_are_skipped_counted_and_listed_if_asked(
    format: str, rows: list[Row], tmp_path: Path, read: ReadRows
) -> None:
    good, path = write(tmp_path / "good.jsonl", rows), tmp_path / "log.jsonl"
    path.write_text("".join(f"{junk}\n" for junk in JUNK[::-1]) + good.read_text())
    log = read(path, skip_bad=True)
    assert log.format == format
    assert figures(log.trace) == figures(read(good).trace)
    assert log.trace.warnings[0] == f"{len(JUNK)} bad rows were skipped"
    assert log.trace.warnings[1].startswith(f"skipped {path}:1: ")
    assert log.trace.warnings[len(JUNK)].startswith(f"skipped {path}:{len(JUNK)}: ")


def test_a_log_of_bad_rows_only_is_refused(format: str, tmp_path: Path, read: ReadRows) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("{}\n{}\n")
    with pytest.raises(InputError, match=r"the log has no request .all 2 were skipped"):
        read(path, format=format, skip_bad=True)


def test_strict_makes_every_warning_an_error(
    format: str, rows: list[Row], tmp_path: Path, read: ReadRows
) -> None:
    path = write(tmp_path / "log.jsonl", rows)
    warnings = read(path).trace.warnings
    if not warnings:
        assert read(path, strict=True).trace.num_requests > 0
        return
    with pytest.raises(InputError) as caught:
        read(path, strict=True)
    assert all(warning in str(caught.value) for warning in warnings)


def test_an_empty_log_is_refused(format: str, tmp_path: Path, read: ReadRows) -> None:
    with pytest.raises(InputError, match="no request"):
        read(write(tmp_path / "log.jsonl", []), format=format)


def test_a_log_that_another_format_fits_is_not_misread(
    format: str, rows: list[Row], tmp_path: Path, letters: Tokenizer
) -> None:
    path = write(tmp_path / "log.jsonl", rows)
    for other in set(FORMATS) - {format}:
        with pytest.raises(FormatError, match=r"log\.jsonl:1: "):
            read_log([path], format=other, tokenizer=letters)


def test_a_row_of_another_format_is_named(
    format: str, rows: list[Row], tmp_path: Path, read: ReadRows
) -> None:
    for other in set(FORMATS) - {format}:
        path = write(tmp_path / "log.jsonl", [*rows, rows_of(other)[0]])
        with pytest.raises(FormatError, match=rf"log\.jsonl:{len(rows) + 1}: "):
            read(path)
