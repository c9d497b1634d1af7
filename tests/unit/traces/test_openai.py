"""OpenAI bodies to token blocks. The tokenizer of these tests makes one token of every letter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadkit.core.errors import FormatError, InputError
from loadkit.core.tokenizer import Tokenizer
from loadkit.core.trace import UNKNOWN, Trace
from loadkit.traces import read_trace

WriteLog = Callable[..., Path]


def read(paths: list[Path], **options: Any) -> Trace:
    return read_trace(paths, format="openai", **options)


def chat(*contents: str, **more: Any) -> dict[str, Any]:
    roles = ["user", "assistant"]
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
    return {"messages": messages, **more}


def resident(trace: Trace, row: int) -> list[int]:
    assert trace.resident_ptr is not None
    assert trace.resident_ids is not None
    return trace.resident_ids[trace.resident_ptr[row] : trace.resident_ptr[row + 1]].tolist()


def test_chat_is_rendered_with_the_template_and_cut_into_full_blocks(
    write_log: WriteLog, letters: Tokenizer
) -> None:
    trace = read([write_log(chat("abc"))], block_size=4, tokenizer=letters)
    # <user>abc<assistant> has 6 + 3 + 11 letters.
    assert trace.prompt_tokens.tolist() == [20]
    assert trace.block_ids.tolist() == [0, 1, 2, 3, 4]
    assert trace.partial_page is not None
    assert trace.partial_page.tolist() == [False]
    assert trace.resident_ids is None


def test_prompts_may_be_text_or_token_ids(write_log: WriteLog, letters: Tokenizer) -> None:
    log = write_log({"prompt": "abcde"}, {"prompt": [0, 1, 2, 3, 4]}, {"prompt": [9, 1, 2, 3]})
    trace = read([log], block_size=2, tokenizer=letters)
    assert trace.block_ids.tolist() == [0, 1, 0, 1, 2, 3]
    assert trace.prompt_key.tolist() == [0, 0, 1]


def test_token_ids_need_no_tokenizer(write_log: WriteLog) -> None:
    assert read([write_log({"prompt": [1, 2, 3]})], block_size=2).num_blocks == 1


def test_text_without_a_tokenizer_is_refused_with_the_remedy(write_log: WriteLog) -> None:
    for row in ({"prompt": "abc"}, chat("abc"), {"prompt": [1], "response": {"content": "x"}}):
        with pytest.raises(InputError, match="--tokenizer"):
            read([write_log(row)])


def test_prompts_that_differ_in_the_partial_block_have_two_keys(write_log: WriteLog) -> None:
    log = write_log({"prompt": [1, 2, 3]}, {"prompt": [1, 2, 4]}, {"prompt": [1, 2, 3]})
    trace = read([log], block_size=2)
    assert trace.block_ids.tolist() == [0, 0, 0]
    assert trace.prompt_key.tolist() == [0, 1, 0]


def test_a_cache_salt_is_a_domain_of_its_own(write_log: WriteLog) -> None:
    log = write_log({"prompt": [1, 2]}, {"prompt": [1, 2], "cache_salt": "x"})
    trace = read([log], block_size=2)
    assert trace.block_ids.tolist() == [0, 1]
    assert trace.prompt_key.tolist() == [0, 1]


def test_models_share_no_block_and_several_are_told(write_log: WriteLog) -> None:
    log = write_log({"prompt": [1, 2], "model": "m"}, {"prompt": [1, 2], "model": "m-lora"})
    trace = read([log], block_size=2)
    assert trace.block_ids.tolist() == [0, 1]
    assert "the log has requests of 2 models: no block is shared between models" in trace.warnings


def test_tools_are_part_of_the_prompt(
    write_log: WriteLog, letters: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "{{ tools[0].name if tools else '' }}" + letters.hf.chat_template
    monkeypatch.setattr(letters.hf, "chat_template", template)
    log = write_log(chat("a"), chat("a", tools=[{"name": "bc"}]))
    trace = read([log], block_size=4, tokenizer=letters)
    assert trace.prompt_tokens.tolist() == [18, 20]


def test_generated_ids_stay_in_the_cache_but_for_the_last(write_log: WriteLog) -> None:
    # 3 prompt tokens and 4 of 5 reply tokens: 7 tokens are 3 full blocks of 2 and a started page.
    row = {"prompt": [1, 2, 3], "response": {"token_ids": [4, 5, 6, 7, 8]}}
    follow = {"prompt": [1, 2, 3, 4, 5, 6, 7, 8]}
    trace = read([write_log(row, follow)], block_size=2)
    assert trace.block_ids.tolist() == [0, 0, 1, 2, 3]
    assert resident(trace, 0) == [0, 1, 2]
    assert resident(trace, 1) == [0, 1, 2, 3]
    assert trace.output_tokens.tolist() == [5, UNKNOWN]
    assert trace.partial_page is not None
    assert trace.partial_page.tolist() == [True, False]


@pytest.mark.parametrize(
    ("finish_reason", "blocks", "partial"),
    [("stop", 3, False), (None, 3, False), ("length", 2, True)],
)
def test_reply_text_stays_whole_unless_cut_by_length(
    write_log: WriteLog, letters: Tokenizer, finish_reason: str | None, blocks: int, partial: bool
) -> None:
    response = {"content": "cdef", "finish_reason": finish_reason}
    log = write_log({"prompt": [0, 1], "response": response})
    trace = read([log], block_size=2, tokenizer=letters)
    assert len(resident(trace, 0)) == blocks
    assert trace.partial_page is not None
    assert trace.partial_page.tolist() == [partial]


def test_an_openai_completion_object_is_understood(write_log: WriteLog, letters: Tokenizer) -> None:
    chat_reply = {"choices": [{"message": {"content": "cd"}, "finish_reason": "stop"}]}
    text_reply = {"choices": [{"text": "cd", "finish_reason": "stop"}]}
    call_only = {"choices": [{"message": {"content": None, "tool_calls": []}}]}
    log = write_log(
        *({"prompt": [0, 1], "response": r} for r in (chat_reply, text_reply, call_only))
    )
    trace = read([log], block_size=2, tokenizer=letters)
    assert [len(resident(trace, row)) for row in range(3)] == [2, 2, 1]
    assert trace.output_tokens.tolist() == [2, 2, UNKNOWN]
    assert any("1 requests have no reply" in warning for warning in trace.warnings)


def test_an_empty_reply_is_not_an_unknown_one(write_log: WriteLog) -> None:
    log = write_log({"prompt": [0, 1], "response": {"token_ids": []}}, {"prompt": [0, 1]})
    assert read([log], block_size=2).output_tokens.tolist() == [0, UNKNOWN]


def test_replies_complete_after_their_latency(write_log: WriteLog) -> None:
    log = write_log(
        {"prompt": [1], "timestamp": 5, "response": {"token_ids": [2], "latency_s": 2.5}},
        {"prompt": [1], "timestamp": 6},
    )
    trace = read([log])
    assert trace.completed_s is not None
    assert trace.completed_s.tolist() == [7.5, 6.0]


def test_rows_out_of_time_are_sorted_with_their_replies(write_log: WriteLog) -> None:
    log = write_log(
        {
            "prompt": [1, 2],
            "timestamp": 9,
            "session_id": "late",
            "response": {"token_ids": [3, 4, 5]},
        },
        {"prompt": [7, 8], "timestamp": 1, "session_id": "early", "response": {"token_ids": []}},
    )
    trace = read([log], block_size=2)
    assert trace.arrival_s is not None
    assert trace.arrival_s.tolist() == [1, 9]
    assert trace.output_tokens.tolist() == [0, 3]
    assert [len(resident(trace, row)) for row in range(2)] == [1, 2]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"prompt": [1], "messages": []}, "either `messages` or `prompt`"),
        ({"model": "m"}, "either `messages` or `prompt`"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [2**31]}, "prompt"),
        ({"prompt": [1.5]}, "prompt"),
        ({"prompt": [1], "timestamp": 3}, "the rows before have none"),
        ({"prompt": [1], "response": {"choices": []}}, "0 choices"),
        ({"prompt": [1], "response": {"choices": [{"text": 5}]}}, "response does not fit"),
        ({"prompt": [1], "response": {"latency_s": -1}}, "latency_s"),
        ({"prompt": [1], "response": "hello"}, "response"),
        ({"messages": "hello"}, "messages"),
    ],
)
def test_a_row_that_does_not_fit_is_named_by_line(
    write_log: WriteLog, bad: dict[str, Any], message: str
) -> None:
    with pytest.raises(FormatError, match=r"log\.jsonl:2: ") as caught:
        read([write_log({"prompt": [1]}, bad)])
    assert message in str(caught.value)


def test_messages_that_the_template_refuses_are_named_by_line(
    write_log: WriteLog, letters: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "{% if not messages[0].role %}{{ raise_exception('no role') }}{% endif %}"
    monkeypatch.setattr(letters.hf, "chat_template", template)
    with pytest.raises(FormatError, match=r":2: letters: .*no role"):
        read([write_log(chat("a"), {"messages": [{}]})], tokenizer=letters)


def test_another_adapter_or_model_shares_no_block(write_log: WriteLog) -> None:
    rows = [
        {"prompt": [1, 2, 3, 4, 5]},
        {"prompt": [1, 2, 3, 4, 5], "lora": "tuned"},
        {"prompt": [1, 2, 3, 4, 5], "model": "m", "lora": "tuned"},
        {"prompt": [1, 2, 3, 4, 5], "lora": "tuned"},
    ]
    trace = read_trace([write_log(*rows)], block_size=4)
    assert trace.block_ids.tolist() == [0, 1, 2, 1]
    assert len(set(trace.prompt_key.tolist())) == 3


def test_a_reply_with_reasoning_is_known_by_its_token_ids_only(write_log: WriteLog) -> None:
    """The reasoning was computed before the content: content alone does not follow the prompt."""
    message = {"role": "assistant", "content": "c", "reasoning_content": "b"}
    with_ids = {"choices": [{"message": message, "token_ids": [3, 4, 9]}]}
    rows = [
        {"prompt": [1, 2], "response": with_ids},
        {"prompt": [1, 2], "response": {"choices": [{"message": message}]}},
    ]
    trace = read_trace([write_log(*rows)], block_size=2)
    assert trace.resident_ptr is not None
    assert trace.resident_ptr.tolist() == [0, 2, 3]


def test_text_parts_give_the_tokens_that_the_reference_server_gives(
    write_log: WriteLog, letters: Tokenizer
) -> None:
    from reference_server.schema import ChatRequest

    messages = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "abc"}, {"type": "text", "text": "de"}],
        },
        {"role": "assistant", "content": None},
        {"role": "user", "content": "x"},
    ]
    path = write_log({"messages": messages})
    trace = read_trace([path], tokenizer=letters, block_size=1)
    asked = ChatRequest.model_validate({"model": "m", "messages": messages})
    served = letters.encode_chat([message.for_template() for message in asked.messages])
    joined = letters.encode_chat([{"role": "user", "content": "abcde"}, *messages[1:]])
    assert served == joined == letters.encode_chat(messages)
    assert trace.prompt_tokens.tolist() == [len(served)]


@pytest.mark.parametrize("inside", [False, True])
def test_the_servers_token_ids_of_the_prompt_need_no_tokenizer_and_go_before_its_own(
    write_log: WriteLog, letters: Tokenizer, inside: bool
) -> None:
    """vLLM's answer has them at its top for chats, in the choice for completions."""
    choice = {"message": {"content": "x"}, "token_ids": [7, 8, 9], "finish_reason": "stop"}
    ids = {"prompt_token_ids": [1, 2, 3, 4]}
    answer = {"choices": [choice | ids]} if inside else {"choices": [choice]} | ids
    log = write_log(chat("abc", response=answer), {"prompt": "abc", "response": answer})
    for tokenizer in (None, letters):
        trace = read([log], block_size=2, tokenizer=tokenizer)
        assert trace.prompt_tokens.tolist() == [4, 4]
        assert trace.block_ids.tolist() == [0, 1, 0, 1]
        assert resident(trace, 0) == [0, 1, 2]


def test_prompt_token_ids_that_cannot_be_are_an_error(write_log: WriteLog) -> None:
    for bad in ([2**31], [-1], ["a"], "abc"):
        for answer in ({"prompt_token_ids": bad}, {"choices": [{"prompt_token_ids": bad}]}):
            with pytest.raises(FormatError, match="does not fit"):
                read([write_log(chat("abc", response=answer))], block_size=2)
