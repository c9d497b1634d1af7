"""Files that are damaged, compressed or no logs at all."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from loadkit.core.errors import FormatError, InputError
from loadkit.traces import lines, read_log
from loadkit.traces.lines import read_lines

ROW = json.dumps({"timestamp": 0, "input_length": 5, "hash_ids": [1]}).encode()


def test_lines_count_from_one_and_blank_ones_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\n{}\r\n  \n[]")
    found = [(line.number, line.data, line.complete) for line in read_lines(path)]
    assert found == [(2, b"{}", True), (4, b"[]", False)]


def test_gz_and_zst_give_the_same_trace_as_plain(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    plain, gz, zst = (tmp_path / name for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst"))
    plain.write_bytes(ROW + b"\n")
    gz.write_bytes(gzip.compress(ROW + b"\n"))
    zst.write_bytes(zstandard.compress(ROW + b"\n"))
    lengths = [read_log([path]).trace.prompt_tokens.tolist() for path in (plain, gz, zst)]
    assert lengths == [[5], [5], [5]]


def test_a_truncated_last_line_is_told_apart_from_nonsense(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(ROW + b"\n" + ROW[:30])
    with pytest.raises(FormatError, match=r"log\.jsonl:2: the last line is cut off"):
        read_log([path])


def test_a_last_line_without_newline_is_fine_if_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(ROW)
    assert read_log([path]).trace.num_requests == 1


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_log_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    for format in ("auto", "mooncake", "openai", "hashed"):
        with pytest.raises(InputError, match="the log has no request"):
            read_log([path], format=format)


@pytest.mark.parametrize("content", [b"\xff\xfe{}\n", b'{"prompt": "\xe9"}\n'])
def test_bytes_that_are_not_utf8_are_named_by_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"prompt": [1]}\n' + content)
    with pytest.raises(FormatError, match=r":2: the line is not UTF-8"):
        read_log([path])


def test_the_elements_of_a_json_array_are_rows_with_the_line_they_begin_on(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_bytes(b'[\n{"a": 1},\n\n{"a":\n 1}, {"b": 2}\n]\n')
    found = [(line.number, line.data) for line in read_lines(path)]
    assert found == [(2, b'{"a": 1}'), (4, b'{"a":\n 1}'), (5, b'{"b": 2}')]


def test_a_json_array_on_one_line_is_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_bytes(b"[" + ROW + b"," + ROW + b"]")
    assert read_log([path]).trace.num_requests == 2


def test_an_array_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_bytes(b"[\n" + ROW + b",\n" + ROW[:20])
    with pytest.raises(FormatError, match=r"log\.json:3: the JSON array is cut off"):
        read_log([path])


def test_an_array_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"[1, 2]\n" + ROW + b"\n")
    with pytest.raises(FormatError, match=r":1: the file begins as a JSON array and is none"):
        read_log([path])


def test_a_json_document_over_several_lines_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    path.write_text(json.dumps(json.loads(ROW), indent=2))
    assert read_log([path]).trace.num_requests == 1


def test_jsonl_named_json_is_read_by_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_bytes(ROW + b"\n" + ROW + b"\n")
    assert read_log([path]).trace.num_requests == 2


@pytest.mark.parametrize("name", ["cut.jsonl.gz", "not.jsonl.gz", "not.jsonl.zst"])
def test_a_damaged_archive_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    data = gzip.compress(ROW * 1000, mtime=0)[:-9] if name.startswith("cut") else ROW
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"{name}: cannot be read"):
        read_log([path])


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_log([tmp_path / "nowhere.jsonl"])


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="directory"):
        read_log([tmp_path])


def test_a_line_of_50_mb_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(ROW[:-1] + b', "text_input": "' + b"x" * 50_000_000 + b'"}\n' + ROW + b"\n")
    assert read_log([path]).trace.num_requests == 2


def test_a_line_beyond_the_cap_is_refused_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)
    path = tmp_path / "log.jsonl"
    path.write_bytes(ROW + b"\n" + b"x" * 150)
    with pytest.raises(FormatError, match=r":2: the line is longer than"):
        read_log([path])


def test_a_document_beyond_the_cap_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_DOCUMENT_BYTES", 100)
    path = tmp_path / "log.json"
    path.write_bytes(b"[\n" + b",\n".join([ROW] * 9) + b"]")
    with pytest.raises(FormatError, match=r":1: a JSON document of more than"):
        read_log([path])


def test_a_zst_file_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    path = tmp_path / "log.jsonl.zst"
    whole = zstandard.compress((ROW + b"\n") * 50)
    for end in range(1, len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError):
            read_log([path])


def test_several_zst_frames_are_one_file(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    path = tmp_path / "log.jsonl.zst"
    path.write_bytes(zstandard.compress(ROW + b"\n") * 3)
    assert read_log([path]).trace.num_requests == 3


def test_a_bad_row_of_the_logs_own_format_is_not_said_to_be_of_that_format(
    tmp_path: Path,
) -> None:
    good = {"input_length": 600, "hash_ids": [1, 2]}
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(good) + "\n" + json.dumps(good | {"input_length": -4}) + "\n")
    with pytest.raises(FormatError) as caught:
        read_log([path])
    assert caught.value.line == 2
    assert "looks like" not in str(caught.value)
    path.write_text(json.dumps(good) + '\n{"prompt": [1]}\n')
    with pytest.raises(FormatError, match="looks like `openai`"):
        read_log([path])


def test_bytes_that_are_no_utf8_are_told_in_a_row_of_another_format_too(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"input_length": 600, "hash_ids": [1, 2]}\n{"prompt": "caf\xe9"}\n')
    with pytest.raises(FormatError, match=r"log.jsonl:2: the line is not UTF-8"):
        read_log([path])
