"""`loadkit forecast` on corpora without time, torn logs and other engines, as a user meets it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from command import Call
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer's folder: a token a word, numbers up to 9999 known."""
    names = ["?", "you", "help", "<user>", "<system>", "<assistant>"]
    vocabulary = {word: at for at, word in enumerate([*names, *map(str, range(10_000))])}
    backend = Backend(models.WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path_factory.mktemp("words")
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return folder


def dialogues(count: int) -> list[list[str]]:
    """What people and assistant say in turns, the same number of words each time."""
    draw = random.Random(3)
    return [[" ".join(str(draw.randrange(10_000)) for _ in range(8)) for _ in range(2 * turns - 1)]
            for turns in draw.choices((1, 2, 3), k=count)]  # fmt: skip


def messages(said: list[str]) -> list[dict[str, str]]:
    system = {"role": "system", "content": "you help " * 8}
    spoken = [{"role": ("user", "assistant")[at % 2], "content": text}
              for at, text in enumerate(said)]  # fmt: skip
    return [system, *spoken]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "sharegpt.jsonl"
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    rows = [{"id": str(at), "conversations": [
        {"from": names[said["role"]], "value": said["content"]} for said in messages(dialogue)
    ]} for at, dialogue in enumerate(dialogues(120))]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asked(loadkit: Call, *arguments: Any) -> tuple[int, dict[str, Any], str]:
    code, out, err = loadkit("forecast", *arguments, "--json")
    assert out, err
    return code, json.loads(out), err


def test_a_sharegpt_corpus_is_forecast_for_an_infinite_cache_only(
    loadkit: Call, corpus: Path, words: Path
) -> None:
    tail = ("--tokenizer", words, "--block-size", 4)
    code, answer, _ = asked(loadkit, corpus, "--traffic", "5x", *tail)
    assert code == 0
    assert answer["curve"] == []
    assert answer["split"]["continuation"] > 0.2
    code, refused, err = asked(loadkit, corpus, "--traffic", "5x", "--capacity", 100, *tail)
    assert (code, refused["hit_rate"]["estimate"]) == (3, None)
    assert "nothing says what a cache holds between two turns" in err
    code, out, _ = loadkit("forecast", corpus, "--traffic", "1x", *tail)
    assert code == 0
    assert "no curve of capacities" in out


def test_requests_drawn_one_by_one_from_a_chat_log_are_put_back_into_sessions(
    loadkit: Call, tmp_path: Path, words: Path
) -> None:
    """Infinite cache, no timestamps: own turns from the messages, the system prompt from the rest."""
    whole = [messages(said[:end]) for said in dialogues(900) for end in range(1, len(said) + 1, 2)]
    draw = random.Random(5)
    kept = [request for request in whole if draw.random() < 0.25]
    rates, paths = {}, {"whole": whole, "torn": kept}
    tail = ("--tokenizer", words, "--block-size", 4, "--target", 50)
    for name, requests in paths.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"messages": said}) + "\n" for said in requests))
        if name == "whole":
            rates[name] = asked(loadkit, path, "--traffic", "1x", *tail)[1]["hit_rate"]
            continue
        for unit in ("sessions", "requests"):
            traffic = f"{len(whole) / len(kept):.3f}x"
            code, answer, _ = asked(loadkit, path, "--traffic", traffic, "--sampled", unit, *tail)
            assert code == 0
            rates[unit] = answer["hit_rate"]
            warned = any("--sampled requests" in note for note in answer["warnings"])
            assert warned == (unit == "sessions")
    truth = rates["whole"]["estimate"]
    assert abs(rates["requests"]["estimate"] - truth) < 0.03
    assert rates["requests"]["method"] == "torn_requests"
    assert truth - rates["sessions"]["estimate"] > 0.1


def test_an_engine_of_slots_and_an_unknown_unit_are_refused(
    loadkit: Call, corpus: Path, words: Path
) -> None:
    tail = ("--tokenizer", words)
    code, _, err = loadkit("forecast", corpus, "--engine", "llamacpp", *tail)
    assert code == 2
    assert "slots" in err
    code, _, err = loadkit("forecast", corpus, "--sampled", "users", *tail)
    assert code == 2
    assert "sessions, requests, tenants" in err


def test_lifetime_and_horizon_are_told_as_elsewhere_and_a_wrong_one_is_refused(
    loadkit: Call, tmp_path: Path
) -> None:
    log = tmp_path / "ids.jsonl"
    rows = [{"timestamp": at, "prompt": [1] * 40} for at in (0.0, 200.0, 900.0)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rates = [asked(loadkit, log, "--ttl", text)[1]["hit_rate"] for text in ("300", "5m", "1h")]
    assert [rate["estimate"] for rate in rates] == [32 / 120, 32 / 120, 64 / 120]
    for option in ("--ttl", "--horizon"):
        code, _, err = loadkit("forecast", log, option, "soon")
        assert (code, f"{option}: time 'soon' is not understood" in err) == (2, True)


def test_a_chat_log_without_its_text_is_analyzed_alike_but_for_what_only_text_tells(
    loadkit: Call, words: Path, tmp_path: Path
) -> None:
    log, hashed = tmp_path / "chats.jsonl", tmp_path / "hashed.jsonl"
    rows = [
        {"timestamp": at, "session_id": str(at % 9), "messages": messages(said)}
        for at, said in enumerate(dialogues(40))
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--tokenizer", words, "--block-size", "4", "--hashed-out", hashed]
    before = json.loads(loadkit("analyze", log, *options, "--json").out)
    after = json.loads(loadkit("analyze", hashed, "--json").out)
    first = before["diversity"]["leaderboard"]
    assert any(prefix["message_index"] is not None for prefix in first)
    for prefix in first:
        prefix["message_index"] = None
    for told in (before, after):
        told.pop("format"), told.pop("warnings"), told["append_only"].pop("causes")
    assert before == after


def test_prompts_only_is_the_forecast_of_the_log_without_its_responses(
    tmp_path: Path, words: Path, loadkit: Call
) -> None:
    """What a replay can hit: its histories hold replies that its server never computed."""
    rows = []
    for at, said in enumerate(dialogues(120)):
        for turn in range(0, len(said), 2):
            asked_row = {"timestamp": 60.0 * at + turn, "session_id": str(at),
                         "messages": messages(said[: turn + 1])}  # fmt: skip
            reply = said[turn + 1] if turn + 1 < len(said) else "you help"
            rows.append((asked_row, {"response": {"content": reply, "finish_reason": "stop"}}))
    whole, prompts = tmp_path / "whole.jsonl", tmp_path / "prompts.jsonl"
    whole.write_text("".join(json.dumps(row | reply) + "\n" for row, reply in rows))
    prompts.write_text("".join(json.dumps(row) + "\n" for row, _ in rows))
    options = ("--tokenizer", words, "--block-size", 4)
    with_replies = asked(loadkit, whole, *options)[1]
    alone = asked(loadkit, whole, *options, "--prompts-only")[1]
    assert (with_replies["log"]["replies"], alone["log"]["replies"]) == (True, False)
    assert alone["hit_rate"] == asked(loadkit, prompts, *options)[1]["hit_rate"]
    assert alone["hit_rate"]["estimate"] < with_replies["hit_rate"]["estimate"]


@pytest.fixture
def partial_tails(tmp_path: Path) -> Path:
    """300 prompts of 100 tokens in blocks of 512: every id stands for a partial block."""
    rows = (
        {"timestamp": at * 10_000, "input_length": 100, "output_length": 5,
         "hash_ids": [1 + at % 3], "session_id": f"s{at}"}
        for at in range(300)
    )  # fmt: skip
    path = tmp_path / "s.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_ids_of_partial_blocks_are_forecast_as_they_are_analyzed(
    loadkit: Call, partial_tails: Path
) -> None:
    told = json.loads(loadkit("forecast", partial_tails, "--engine", "none", "--json").out)
    counted = json.loads(loadkit("analyze", partial_tails, "--engine", "none", "--json").out)
    assert told["hit_rate"]["estimate"] == counted["infinite"]["hit_rate"] == 297 / 300
    assert told["curve"] == counted["curve"]


@pytest.mark.parametrize("command", ["forecast", "analyze"])
def test_an_impossible_figure_is_told_as_a_fault_and_never_printed(
    command: str, loadkit: Call, partial_tails: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadkit.analysis.nodes.hit_tokens", lambda blocks, _, size: blocks * size)
    answer = loadkit(command, partial_tails, "--engine", "none")
    assert (answer.code, answer.out) == (3, "")
    assert answer.err.startswith("loadkit: a part of ")
    assert "fault of loadkit" in answer.err
