"""Logs of whole dialogues and plain texts: sharegpt, tau-bench, lmcache, openai-batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadkit.core.errors import FormatError
from loadkit.core.tokenizer import Tokenizer
from loadkit.core.trace import UNKNOWN, Trace
from loadkit.traces import read_log

WriteLog = Callable[..., Path]
Read = Callable[..., Trace]


@pytest.fixture
def read(letters: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Read with one token a letter and a template of the contents alone, in blocks of 2."""
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    monkeypatch.setattr(letters.hf, "chat_template", template)

    def read_in_blocks_of_two(*paths: Path, **options: Any) -> Trace:
        return read_log(paths, tokenizer=letters, block_size=2, **options).trace

    return read_in_blocks_of_two


def talk(*turns: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"conversations": [{"from": who, "value": text} for who, text in turns], **more}


def test_sharegpt_makes_a_cumulative_request_of_every_human_turn(
    write_log: WriteLog, read: Read
) -> None:
    log = write_log(talk(("human", "ab"), ("gpt", "cd"), ("human", "ef"), ("gpt", "g")))
    trace = read(log)
    assert trace.prompt_tokens.tolist() == [2, 6]
    assert trace.output_tokens.tolist() == [2, 1]
    assert trace.session.tolist() == [0, 0]
    assert not trace.sessions_inferred
    assert trace.arrival_s is None


def test_sharegpt_keeps_system_messages_and_a_first_answer(write_log: WriteLog, read: Read) -> None:
    log = write_log(talk(("system", "ab"), ("gpt", "cd"), ("human", "e")))
    trace = read(log)
    assert trace.prompt_tokens.tolist() == [5]
    assert trace.output_tokens.tolist() == [UNKNOWN]


def test_sharegpt_counts_conversations_without_a_human_turn(
    write_log: WriteLog, read: Read
) -> None:
    trace = read(write_log(talk(("human", "a")), talk(), talk(("gpt", "b"))))
    assert trace.num_requests == 1
    assert "2 conversations have no human turn, so no request" in trace.warnings


def test_sharegpt_counts_repeated_conversations_once(write_log: WriteLog, read: Read) -> None:
    turns = ("human", "a"), ("gpt", "b"), ("human", "c")
    trace = read(write_log(talk(*turns, id="x"), talk(*turns, id="x"), talk(*turns, id="y")))
    assert trace.warnings[0].startswith("1 row has the request id of an earlier row")


def test_sharegpt_names_an_unknown_speaker(write_log: WriteLog, read: Read) -> None:
    log = write_log(talk(("human", "a")), talk(("human", "a"), ("alien", "b")))
    with pytest.raises(FormatError, match=r":2: unknown speaker 'alien'"):
        read(log)


def test_a_conversation_that_is_bad_is_skipped_whole(write_log: WriteLog, read: Read) -> None:
    log = write_log(talk(("human", "a"), ("alien", "b"), ("human", "c")), talk(("human", "a")))
    assert read(log, skip_bad=True).num_requests == 1


def test_tau_bench_makes_a_request_of_every_assistant_message(
    write_log: WriteLog, read: Read
) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    dialogue = [
        {"role": "system", "content": "ab"},
        {"role": "user", "content": "cd"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "ef", "tool_call_id": "1"},
        {"role": "assistant", "content": "gh"},
    ]
    trace = read(write_log({"task_id": 3, "trial": 0, "traj": dialogue}))
    assert trace.prompt_tokens.tolist() == [4, 6]
    # How a template writes a tool call is not in the log; the last answer is plain text.
    assert trace.output_tokens.tolist() == [UNKNOWN, 2]
    assert any("no tool definitions" in warning for warning in trace.warnings)


def test_what_an_assistant_says_unasked_is_no_request(write_log: WriteLog, read: Read) -> None:
    said = [("assistant", "hello"), ("user", "abc"), ("assistant", "de")]
    talk = [{"role": role, "content": text} for role, text in said]
    assert read(write_log({"task_id": 1, "trial": 0, "traj": talk})).num_requests == 1
    assert read(write_log({"conversation": talk})).num_requests == 1


def test_lmcache_has_microseconds_and_plain_text(write_log: WriteLog, read: Read) -> None:
    row = {"timestamp": 2_500_000, "input": "abcd", "output": "efg", "session_id": "s"}
    trace = read(write_log(row))
    assert trace.arrival_s is not None
    assert trace.arrival_s.tolist() == [2.5]
    assert trace.prompt_tokens.tolist() == [4]
    assert trace.output_tokens.tolist() == [3]
    assert trace.resident_ids is not None
    assert len(trace.resident_ids) == 3


def body(**more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "abc"}]
    return {"custom_id": "1", "url": "/v1/chat/completions", "body": {"messages": messages}} | more


def test_openai_batch_reads_the_bodies(write_log: WriteLog, read: Read) -> None:
    texts = body(url="/v1/completions", body={"prompt": "abcde"}, custom_id="2")
    trace = read(write_log(body(), texts))
    assert trace.prompt_tokens.tolist() == [3, 5]
    assert trace.sessions_inferred


def test_openai_batch_counts_repeated_custom_ids(write_log: WriteLog, read: Read) -> None:
    trace = read(write_log(body(), body()))
    assert trace.warnings[0].startswith("1 row has the request id of an earlier row")


def test_openai_batch_refuses_other_endpoints(write_log: WriteLog, read: Read) -> None:
    log = write_log(body(), body(url="/v1/embeddings", body={"input": "abc"}))
    with pytest.raises(FormatError, match=r":2: the url '/v1/embeddings'"):
        read(log)


def test_responses_api_bodies_are_messages(write_log: WriteLog, read: Read) -> None:
    log = write_log(
        {"input": "abc", "instructions": "xy"},
        {"input": [{"role": "user", "content": "abc"}]},
    )
    assert read(log).prompt_tokens.tolist() == [5, 3]


def test_an_input_item_without_its_text_is_refused(write_log: WriteLog, read: Read) -> None:
    log = write_log({"input": "a"}, {"input": [{"type": "function_call_output"}]})
    with pytest.raises(FormatError, match=r":2: .*`function_call_output` has no `output`"):
        read(log)


def test_prompt_tokens_that_the_server_counted_otherwise_are_told(
    write_log: WriteLog, read: Read
) -> None:
    def row(tokens: int) -> dict[str, Any]:
        choices = [{"message": {"content": "a"}}]
        return {
            "prompt": "ab",
            "response": {"choices": choices, "usage": {"prompt_tokens": tokens}},
        }

    assert not any("counted" in warning for warning in read(write_log(row(2))).warnings)
    assert any("counted 7 prompt tokens" in w for w in read(write_log(row(7))).warnings)


def test_times_that_cannot_be_seconds_are_told(write_log: WriteLog, read: Read) -> None:
    log = write_log({"prompt": "a", "timestamp": 1.76e12})
    assert any("cannot be seconds" in warning for warning in read(log).warnings)
