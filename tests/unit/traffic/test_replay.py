"""Replayed logs: any format, as logged or shuffled, as text, token ids or in the place of hashes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from traffic_profiles import CORPUS, constant, profile_of

from loadkit.analysis import analyze
from loadkit.core.errors import InputError
from loadkit.traces import TokenRequest, read_trace, token_trace
from loadkit.traffic.build import build_plan
from loadkit.traffic.plan import TrafficPlan

LOGGED = {"loop": "open", "process": "log"}


def write(folder: Path, rows: list[dict[str, Any]], name: str = "log.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def replay(log: str, arrivals: Any = None, **more: Any) -> TrafficPlan:
    return build_plan(profile_of({"kind": "replay", "log": log} | more, arrivals))


def test_a_sharegpt_log_is_sent_as_one_request_a_human_turn(tmp_path: Path) -> None:
    talk = [("human", "hi"), ("gpt", "hello"), ("human", "bye"), ("gpt", "so long")]
    row = {"id": "t", "conversations": [{"from": who, "value": text} for who, text in talk]}
    plan = replay(write(tmp_path, [row]))
    prompts = [session.turns[0].messages for session in plan.sessions]
    assert [len(messages) for messages in prompts] == [1, 3]
    assert [session.first_turn for session in plan.sessions] == [0, 1]


def test_a_parquet_log_gives_the_plan_of_the_same_rows_in_jsonl(tmp_path: Path) -> None:
    rows = [{"timestamp": float(n), "messages": user(f"question {n}")} for n in range(4)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "log.parquet")
    table = replay(str(tmp_path / "log.parquet"), LOGGED)
    assert table == replay(write(tmp_path, rows), LOGGED)


def test_a_dataset_can_be_replayed_by_name(tmp_path: Path) -> None:
    """A folder stands for the hub: `datasets` reads it in the same way."""
    write(tmp_path, [{"messages": user(f"question {n}")} for n in range(3)])
    plan = replay(f"hf:{tmp_path}")
    texts = [session.turns[0].messages[0]["content"] for session in plan.sessions]
    assert texts == ["question 0", "question 1", "question 2"]


def test_logged_lengths_of_answers_are_kept_up_to_the_profiles_maximum(tmp_path: Path) -> None:
    rows = [{"messages": user("a"), "max_tokens": 5}, {"messages": user("b"), "max_tokens": 900}]
    rows.append({"messages": user("c"), "max_tokens": None})  # type: ignore[dict-item]
    request = {"max_tokens": constant(8) | {"max": 40}}
    log = {"kind": "replay", "log": write(tmp_path, rows)}
    plan = build_plan(profile_of(log, request=request))
    assert [session.turns[0].max_tokens for session in plan.sessions] == [5, 40, 8]


def test_token_ids_go_to_completions_as_they_are(tmp_path: Path) -> None:
    plan = replay(write(tmp_path, [{"prompt": [5, 6, 7]}, {"prompt": [5, 6, 8]}]))
    assert [session.turns[0].prompt for session in plan.sessions] == [(5, 6, 7), (5, 6, 8)]
    assert {session.api for session in plan.sessions} == {"completions"}


def test_a_text_prompt_is_a_users_message_unless_completions_are_asked_for(tmp_path: Path) -> None:
    log = write(tmp_path, [{"prompt": "once upon"}])
    assert replay(log).sessions[0].turns[0].messages == tuple(user("once upon"))
    request = {"max_tokens": constant(4), "api": "completions"}
    plan = build_plan(profile_of({"kind": "replay", "log": log}, request=request))
    assert plan.sessions[0].turns[0].prompt == "once upon"


def test_a_log_of_hashes_becomes_token_ids_that_share_exactly_as_it_says(tmp_path: Path) -> None:
    """The analyzer, which reads the hashes, and the tokens, which it hashes itself, agree."""
    rows = [
        {"timestamp": 0, "input_length": 40, "output_length": 3, "hash_ids": [1, 2, 3]},
        {"timestamp": 500, "input_length": 48, "output_length": 9, "hash_ids": [1, 2, 4]},
        {"timestamp": 900, "input_length": 35, "output_length": 1, "hash_ids": [1, 5, 6]},
        {"timestamp": 1500, "input_length": 48, "output_length": 2, "hash_ids": [1, 2, 4]},
    ]
    log = write(tmp_path, [row | {"block_size": 16} for row in rows], "trace.jsonl")
    plan = replay(log, LOGGED)
    prompts = [session.turns[0].prompt for session in plan.sessions]
    assert all(isinstance(prompt, tuple) for prompt in prompts)
    assert [len(prompt or ()) for prompt in prompts] == [40, 48, 35, 48]
    assert prompts[1] == prompts[3]
    assert [session.start_s for session in plan.sessions] == [0, 0.5, 0.9, 1.5]
    assert [session.turns[0].max_tokens for session in plan.sessions] == [3, 9, 1, 2]
    sent = token_trace([TokenRequest([*(prompt or ())]) for prompt in prompts], 16)
    logged = analyze(read_trace([Path(log)])).to_dict()["infinite"]["hit_rate"]
    # 32 of 48 shared, 16 of 35, 47 // 16 * 16 of 48 replayed
    assert logged == pytest.approx((32 + 16 + 32) / 171)
    assert analyze(sent).to_dict()["infinite"]["hit_rate"] == pytest.approx(logged)


def test_ids_in_the_place_of_hashes_stay_in_a_small_vocabulary(tmp_path: Path) -> None:
    row = {"timestamp": 0, "input_length": 600, "output_length": 3, "hash_ids": [1, 2]}
    plan = replay(write(tmp_path, [row]), vocab_size=350)
    prompt = plan.sessions[0].turns[0].prompt
    assert isinstance(prompt, tuple)
    assert 175 <= min(prompt) <= max(prompt) < 350


def test_shuffling_moves_sessions_but_not_the_order_of_their_own_rows(tmp_path: Path) -> None:
    rows = [
        {"session_id": f"s{number % 20}", "messages": user(f"row {number:03d}")}
        for number in range(100)
    ]
    log = write(tmp_path, rows)
    plan = replay(log, order="shuffled")
    texts = [session.turns[0].messages[0]["content"] for session in plan.sessions]
    assert texts != sorted(texts)
    assert sorted(texts) == [f"row {number:03d}" for number in range(100)]
    for name in {session.session for session in plan.sessions}:
        mine = [one for one in plan.sessions if one.session == name]
        assert [one.first_turn for one in mine] == [0, 1, 2, 3, 4]
        contents = [one.turns[0].messages[0]["content"] for one in mine]
        assert contents == sorted(contents)


def test_a_shuffled_log_has_no_times_of_its_own(tmp_path: Path) -> None:
    log = write(tmp_path, [{"timestamp": 1.0, "messages": user("x")}])
    with pytest.raises(InputError, match="needs a log with a timestamp in every row"):
        replay(log, LOGGED, order="shuffled")


def test_a_row_without_a_time_leaves_no_times_to_replay(tmp_path: Path) -> None:
    rows = [{"timestamp": 1.0, "messages": user("x")}, {"messages": user("y")}]
    with pytest.raises(InputError, match="needs a log with a timestamp in every row"):
        replay(write(tmp_path, rows), LOGGED)


def test_prompts_of_a_file_are_drawn_once_each_and_one_a_conversation(tmp_path: Path) -> None:
    """Later turns of a session repeat its first: they would be no fresh prompts."""
    rows = [{"session_id": n // 2, "messages": user(f"question {n}")} for n in range(20)]
    traffic = CORPUS | {"message_sentences": None, "corpus": write(tmp_path, rows), "requests": 10}
    plan = build_plan(profile_of(traffic))
    texts = {session.turns[0].messages[0]["content"] for session in plan.sessions}
    assert texts == {f"question {2 * n}" for n in range(10)}
    with pytest.raises(InputError, match="11 requests from 10 distinct prompts"):
        build_plan(profile_of(traffic | {"requests": 11}))


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown format 'nope'"):
        replay(write(tmp_path, [{"messages": user("x")}]), format="nope")
