"""What a worker does with a shard, and what a shard may be: without a cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_model import make_tokenizer

from loadkit.analysis.distributed.shards import Failure, Shard, as_url, hash_shard
from loadkit.analysis.sampling.hashed_rows import RowColumns


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_path_that_was_a_url_is_one_again() -> None:
    assert as_url(Path("s3://bucket/log.jsonl")) == "s3://bucket/log.jsonl"
    assert as_url(Path("file:///tmp/log.jsonl")) == "file:///tmp/log.jsonl"
    assert as_url(Path("/tmp/log.jsonl")) == "/tmp/log.jsonl"
    assert as_url(Path("hf:owner/name")) == "hf:owner/name"


def test_a_url_is_read_and_its_bad_row_is_told_by_the_url(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", {"prompt": [1] * 40}, {"prompt": [1] * 33})
    summary, ids = hash_shard(Shard(f"file://{path}", 0))
    assert not isinstance(summary, Failure)
    assert (summary.format, len(summary.columns)) == ("openai", 2)
    assert ids.num_blocks.tolist() == [2, 2]
    assert ids.ids[:2].tolist() == ids.ids[2:].tolist()

    write(path, {"prompt": [1] * 40}, {"prompt": [-1]})
    failure, _ = hash_shard(Shard(f"file://{path}", 0))
    assert isinstance(failure, Failure)
    assert failure.where == f"file://{path}:2"
    assert str(path.parent) in str(failure.error())


def test_text_without_a_tokenizer_and_sessions_with_ids_of_their_own_are_refused(
    tmp_path: Path,
) -> None:
    talk = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    path = write(tmp_path / "log.jsonl", talk)
    failure, _ = hash_shard(Shard(str(path), 0))
    assert isinstance(failure, Failure)  # text without a tokenizer
    assert "tokenizer" in failure.what

    weka = {"id": 1, "requests": [{"t": 0, "in": 64, "hash_ids": [1]}]}
    failure, _ = hash_shard(Shard(str(write(path, weka)), 0))
    assert isinstance(failure, Failure)
    assert "weka" in failure.what


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_shard_is_no_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    summary, ids = hash_shard(Shard(str(path), 0))
    assert not isinstance(summary, Failure)
    assert summary.format is None
    assert len(ids.ids) == 0


def test_what_fsspec_cannot_open_is_told(tmp_path: Path) -> None:
    failure, _ = hash_shard(Shard(f"file://{tmp_path}/none.jsonl", 0))
    assert isinstance(failure, Failure)
    assert "cannot be opened" in failure.what
    assert failure.where == f"file://{tmp_path}/none.jsonl"


def test_conversations_of_two_shards_are_not_taken_for_one(tmp_path: Path) -> None:
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    talk = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    path = write(tmp_path / "log.jsonl", talk, talk)
    whole = RowColumns(16, None)
    for number in (0, 1):
        summary, _ = hash_shard(Shard(str(path), number, tokenizer=str(tmp_path / "tokenizer")))
        assert not isinstance(summary, Failure)
        whole.extend(summary.columns)
    # As one log of four conversations: each is a session of its own, all prompts are the same.
    assert whole.facts.session_codes().tolist() == [0, 1, 2, 3]
    assert len(set(whole.prompt_key)) == 1
