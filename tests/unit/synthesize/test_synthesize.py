"""A workload from a log gives the forecast back, and nothing of the log's text."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from secret_chats import CHATML, SECRET_WORDS, chat_rows, make_tokenizer, write_rows

from loadkit import corpora, profiles
from loadkit.analysis import analyze
from loadkit.analysis.curve import hit_curve
from loadkit.analysis.reuse import reuse_of
from loadkit.core.errors import InputError
from loadkit.core.tokenizer import Tokenizer
from loadkit.core.trace import Trace
from loadkit.forecast import forecast
from loadkit.synthesize import Synthesis, synthesize_chats, synthesize_token_ids
from loadkit.traces import read_log
from loadkit.traffic.build import build_plan

CORPUS = corpora.load("assistant-chat")
CAUSES = ("replay_same_session", "replay_cross_session", "continuation", "shared")


def read(path: Path, tokenizer: Tokenizer | None) -> Trace:
    return read_log([path], tokenizer=tokenizer, block_size=16).trace


@pytest.fixture(scope="module")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 chats with replies."""
    return write_rows(tmp_path_factory.mktemp("log") / "log.jsonl", chat_rows(1, 150))


@pytest.fixture(scope="module")
def log(log_file: Path, tokenizer: Tokenizer) -> Trace:
    return read(log_file, tokenizer)


@pytest.fixture(scope="module")
def log_without_replies(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Trace:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    return read(write_rows(path, chat_rows(1, 150, replies=False)), tokenizer)


@pytest.fixture(scope="module")
def at_3x(
    log: Trace, tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer
) -> tuple[Path, Synthesis]:
    """The log's chats at three times its traffic."""
    out = tmp_path_factory.mktemp("made") / "out.jsonl"
    return out, chats(log, 3, out, tokenizer)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def chats(
    trace: Trace, traffic: float, out: Path, tokenizer: Tokenizer, seed: int = 0
) -> Synthesis:
    return synthesize_chats(trace, traffic, out, tokenizer, CORPUS, seed)


def tells_its_blocks_apart(made: Synthesis) -> bool:
    """All but a few in ten thousand: where a template leaves a block two or three words, two blocks
    may come to say the same by chance. That is counted and warned about."""
    return made.wrong_lengths == 0 and made.lost_blocks <= made.prompt_blocks / 2000


def assert_gives_the_forecast_back(log: Trace, back: Trace, traffic: float, seed: int) -> None:
    """At an infinite cache and along the curve, to a point; by cause to half a point. The curve of a
    forecast without --capacity places blocks on arrival, so that is what it is compared with."""
    expected = forecast(log, traffic, seed=seed)
    sizes = [point.capacity_blocks for point in expected.curve]
    assert len(sizes) > 8
    found = analyze(back, [None])
    curve = hit_curve(reuse_of(back)).points(sizes)
    assert expected.hit_rate.estimate is not None
    assert found.infinite.hit_rate == pytest.approx(expected.hit_rate.estimate, abs=0.01)
    for point, again in zip(expected.curve, curve, strict=True):
        assert again.hit_rate == pytest.approx(point.hit_rate, abs=0.01)
    for cause in CAUSES:
        assert getattr(found.infinite, cause) == pytest.approx(
            getattr(expected.split, cause), abs=0.005
        )


def test_chats_give_the_forecast_back(
    log: Trace, at_3x: tuple[Path, Synthesis], tokenizer: Tokenizer
) -> None:
    out, made = at_3x
    assert tells_its_blocks_apart(made)
    back = read(out, tokenizer)
    assert back.num_requests == 3 * log.num_requests
    assert_gives_the_forecast_back(log, back, 3, seed=0)


@pytest.mark.parametrize("traffic", [1, 3])
def test_chats_of_a_log_without_replies_give_the_forecast_back(
    log_without_replies: Trace, tmp_path: Path, tokenizer: Tokenizer, traffic: float
) -> None:
    log = log_without_replies
    made = chats(log, traffic, tmp_path / "out.jsonl", tokenizer)
    assert tells_its_blocks_apart(made)
    back = read(tmp_path / "out.jsonl", tokenizer)
    assert back.num_requests == traffic * log.num_requests
    assert_gives_the_forecast_back(log, back, traffic, seed=0)


@pytest.mark.parametrize("traffic", [1, 3])
def test_token_ids_give_the_forecast_back(log: Trace, tmp_path: Path, traffic: float) -> None:
    made = synthesize_token_ids(log, traffic, tmp_path / "out.jsonl")
    assert (made.lost_blocks, made.lost_prompts, made.wrong_lengths) == (0, 0, 0)
    assert_gives_the_forecast_back(log, read(tmp_path / "out.jsonl", None), traffic, seed=0)


def test_another_seeds_forecast_comes_back_within_a_point(
    log: Trace, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    chats(log, 3, tmp_path / "out.jsonl", tokenizer, seed=7)
    found = analyze(read(tmp_path / "out.jsonl", tokenizer), [None]).infinite.hit_rate
    assert found == pytest.approx(forecast(log, 3, seed=0).hit_rate.estimate, abs=0.01)


def test_at_1x_lengths_times_blocks_and_rates_are_the_logs(
    log: Trace, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    made = chats(log, 1, tmp_path / "out.jsonl", tokenizer)
    assert (made.lost_blocks, made.wrong_lengths) == (0, 0)
    back = read(tmp_path / "out.jsonl", tokenizer)
    assert_gives_the_forecast_back(log, back, 1, seed=0)
    assert log.arrival_s is not None
    assert back.arrival_s is not None
    assert back.prompt_tokens.tolist() == log.prompt_tokens.tolist()
    assert back.output_tokens.tolist() == log.output_tokens.tolist()
    assert back.arrival_s == pytest.approx(log.arrival_s - log.arrival_s[0], abs=1e-5)
    # Both number blocks and prompts by first appearance.
    assert back.block_ids.tolist() == log.block_ids.tolist()
    assert back.session.tolist() == log.session.tolist()


def test_no_text_of_the_log_survives(log_file: Path, at_3x: tuple[Path, Synthesis]) -> None:
    original = log_file.read_text("utf-8")
    written = at_3x[0].read_text("utf-8")
    for secret in (*SECRET_WORDS, "secret"):
        assert secret in original
        assert secret not in written
    words = {word for row in rows_of(at_3x[0]) for word in words_of(row)}
    assert words <= words_in_corpus()


def words_of(row: dict[str, Any]) -> list[str]:
    texts = [message["content"] for message in row["messages"]]
    return " ".join([*texts, row["response"]["content"]]).split()


def words_in_corpus() -> set[str]:
    text = " ".join(line for lines in CORPUS.grammar.values() for line in lines).lower()
    return set("".join(letter if letter.isalpha() else " " for letter in text).split())


def test_later_turns_extend_earlier_ones_with_their_recorded_replies(
    at_3x: tuple[Path, Synthesis],
) -> None:
    sessions: dict[str, list[dict[str, Any]]] = {}
    for row in rows_of(at_3x[0]):
        sessions.setdefault(row["session_id"], []).append(row)
    pairs = [pair for rows in sessions.values() for pair in itertools.pairwise(rows)]
    extended = 0
    for earlier, later in pairs:
        said = {"role": "assistant", "content": earlier["response"]["content"]}
        told = [*earlier["messages"], said]
        extended += later["messages"][: len(told)] == told
    assert len(pairs) == 3 * 233
    assert extended >= 0.98 * len(pairs)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    log: Trace, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    files = []
    for number, seed in enumerate((1, 1, 2)):
        out = tmp_path / f"{number}.jsonl.gz"
        chats(log, 1.5, out, tokenizer, seed)
        files.append(gzip.decompress(out.read_bytes()))
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_chats_are_replayed_at_their_times_with_their_lengths(
    log: Trace, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    chats(log, 2, tmp_path / "out.jsonl", tokenizer)
    rows = rows_of(tmp_path / "out.jsonl")
    replay = {"kind": "replay", "log": str(tmp_path / "out.jsonl")}
    settings = [f"traffic={json.dumps(replay)}", "arrivals={loop: open, process: log}"]
    plan = build_plan(profiles.load("replay-smoke", settings))
    assert [s.turns[0].messages for s in plan.sessions] == [tuple(r["messages"]) for r in rows]
    starts = [row["timestamp"] - rows[0]["timestamp"] for row in rows]
    assert [s.start_s for s in plan.sessions] == pytest.approx(starts)
    assert max(s.turns[0].max_tokens for s in plan.sessions) > 5


def test_a_log_of_block_ids_becomes_chats_or_token_ids(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    rows = [
        {"timestamp": 0, "input_length": 40, "output_length": 7, "hash_ids": [1, 2, 3]},
        {"timestamp": 1000, "input_length": 40, "output_length": 9, "hash_ids": [1, 2, 3]},
        {"timestamp": 2000, "input_length": 70, "output_length": 2, "hash_ids": [1, 2, 4, 5, 6]},
        {"timestamp": 3000, "input_length": 30, "output_length": 2, "hash_ids": [7, 8]},
    ]
    log = read(write_rows(tmp_path / "log.jsonl", rows), None)
    chats(log, 1, tmp_path / "chats.jsonl", tokenizer)
    synthesize_token_ids(log, 1, tmp_path / "ids.jsonl")
    for name, used in (("chats.jsonl", tokenizer), ("ids.jsonl", None)):
        back = read(tmp_path / name, used)
        assert back.prompt_tokens.tolist() == [40, 40, 70, 30]
        assert back.block_ids.tolist() == [0, 1, 0, 1, 0, 1, 2, 3, 4]
        assert back.prompt_key[0] == back.prompt_key[1]
        assert [row["max_tokens"] for row in rows_of(tmp_path / name)] == [7, 9, 2, 2]


def test_a_request_without_a_reply_in_the_log_gets_none(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    rows = chat_rows(3, 20)
    for row in rows[::2]:
        del row["response"]
    log = read(write_rows(tmp_path / "log.jsonl", rows), tokenizer)
    chats(log, 1, tmp_path / "out.jsonl", tokenizer)
    written = rows_of(tmp_path / "out.jsonl")
    assert ["response" in row for row in written] == ["response" in row for row in rows]
    back = read(tmp_path / "out.jsonl", tokenizer)
    assert analyze(back, [None]).infinite == analyze(log, [None]).infinite


def test_a_template_whose_turns_do_not_extend_each_other_still_shares_blocks(
    log_without_replies: Trace, tmp_path: Path
) -> None:
    log = log_without_replies
    stripping = make_tokenizer(CHATML.replace("'role'] }}\n", "'role'] }}{{ loop.index }}\n"))
    made = chats(log, 1, tmp_path / "out.jsonl", stripping)
    assert (made.lost_blocks, made.wrong_lengths) == (0, 0)
    assert made.longer_requests > 0
    assert any("longer by" in warning for warning in made.warnings)
    assert all(len(row["messages"]) <= 2 for row in rows_of(tmp_path / "out.jsonl"))
    assert_gives_the_forecast_back(log, read(tmp_path / "out.jsonl", stripping), 1, seed=0)


def test_traffic_and_vocabulary_must_make_sense(log: Trace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="traffic 0 is not above 0"):
        synthesize_token_ids(log, 0, tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="--vocab-size"):
        synthesize_token_ids(log, 1, tmp_path / "out.jsonl", vocab_size=1500)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_file_that_cannot_be_written_is_an_input_error(log: Trace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        synthesize_token_ids(log, 1, tmp_path / "no" / "out.jsonl")
