"""Answers known for public logs in other formats than Mooncake's. Needs the files in LOADKIT_DATA."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from loadkit.analysis import analyze
from loadkit.core.tokenizer import Tokenizer
from loadkit.traces import read_log

DATA = Path(os.environ.get("LOADKIT_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


def data_file(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not in LOADKIT_DATA")
    return DATA / name


@pytest.fixture(scope="module")
def bytes_tokenizer() -> Tokenizer:
    """One token a character of the first 256 and one for all others; contents only in chats."""
    from tokenizers import Regex
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"?": 0} | {chr(code): code + 1 for code in range(256) if chr(code) != "?"}
    backend = Backend(WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = Split(Regex(r"[\s\S]"), "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?")
    fast.chat_template = "{% for m in messages %}{{ m['role'] }}{{ m['content'] }}{% endfor %}"
    return Tokenizer(fast, "bytes")


def test_coding_agents_reuse_and_keep_what_is_known() -> None:
    log = read_log([data_file("weka_claude_code_40_sessions.jsonl.gz")])
    assert log.format == "weka"
    analysis = analyze(log.trace, [None])
    assert (analysis.requests, analysis.sessions) == (2152, 40)
    assert round(analysis.infinite.hit_rate or 0, 4) == 0.9602
    assert analysis.infinite.shared == 0
    kept = analysis.append_only.kept / analysis.append_only.turn_pairs
    assert round(kept, 3) == 0.928


def test_single_turn_prompts_share_nothing(bytes_tokenizer: Tokenizer) -> None:
    log = read_log(
        [data_file("arena_hard_v0.1.jsonl.gz")], tokenizer=bytes_tokenizer, block_size=64
    )
    assert log.format == "openai"
    assert log.trace.num_requests == 500
    assert analyze(log.trace, [None]).infinite.hit_rate == pytest.approx(0.0, abs=0.0005)


def test_tool_dialogues_reuse_most_of_their_characters(
    bytes_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with gzip.open(data_file("tau_bench_airline_gpt4o.json.gz")) as file:
        dialogues: list[dict[str, Any]] = json.load(file)[:40]
    path = tmp_path / "first_40.json"
    path.write_text(json.dumps(dialogues))
    log = read_log([path], tokenizer=bytes_tokenizer)
    assert log.format == "tau-bench"
    assert log.trace.num_sessions == 40
    assert log.trace.num_requests == sum(
        message["role"] == "assistant" for row in dialogues for message in row["traj"]
    )
    assert round(analyze(log.trace, [None]).infinite.hit_rate or 0, 2) == pytest.approx(
        0.94, abs=0.015
    )


def test_agent_texts_are_read_in_microseconds(bytes_tokenizer: Tokenizer) -> None:
    folder = data_file("miniswe")
    log = read_log(sorted(folder.glob("*.gz")), tokenizer=bytes_tokenizer)
    assert log.format == "lmcache"
    trace = log.trace
    assert (trace.num_requests, trace.num_sessions) == (142, 6)
    assert trace.arrival_s is not None
    assert 1.76e9 < trace.arrival_s[0] < trace.arrival_s[-1] < 1.77e9
    assert analyze(trace, [None]).infinite.continuation > 0.9
