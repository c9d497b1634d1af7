"""The append-only audit as a whole: what is counted, what is not a loss, what is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from audit_logs import (
    Message,
    assistant,
    audit,
    audit_of,
    lost_by_hand,
    prompt,
    system,
    turn,
    user,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import loadkit.core.chats as chats_module
from loadkit.analysis.audit.audit import append_only
from loadkit.analysis.per_request import per_request_of
from loadkit.analysis.reuse import reuse_of
from loadkit.traces import TokenRequest, read_trace, token_trace

ASK, ANSWER, MORE = user("Which trains go north?"), assistant("Many do."), user("And south?")


def causes(*requests: TokenRequest) -> list[str]:
    return [found.cause for found in audit(*requests).causes]


def ids(*prompt: int, session: str = "s", reply: Sequence[int] | None = None) -> TokenRequest:
    return TokenRequest(prompt, session=session, reply=reply)


def test_a_kept_history_has_no_cause() -> None:
    found = audit(turn([ASK]), turn([ASK, ANSWER, MORE]), turn([ASK, ANSWER, MORE]))
    assert (found.turn_pairs, found.kept, found.tokens_lost, found.lost_rate) == (2, 2, 0, 0.0)
    assert found.causes == ()


def test_causes_stand_by_tokens_lost_and_add_up() -> None:
    large, small = "x" * 200, "y" * 20
    found = audit(
        turn([user("At 9:59: " + small)], session="a"),
        turn([user("At 9:58: " + small), ANSWER, MORE], session="a"),
        turn([system("Trace 1 " + large), ASK], session="b"),
        turn([system("Trace 2 " + large), ASK, ANSWER], session="b"),
        turn([system("Trace 3 " + large), ASK, ANSWER, MORE], session="b"),
    )
    assert [item.cause for item in found.causes] == [
        "counter_in_system_prompt",
        "timestamp_in_message",
    ]
    assert [item.pairs for item in found.causes] == [2, 1]
    assert (found.turn_pairs, found.kept, found.rewritten) == (3, 0, 3)
    assert sum(item.tokens_lost for item in found.causes) == found.tokens_lost
    worst = found.causes[0].example
    assert (worst.previous_request, worst.request) == (4, 5)
    assert worst.tokens_lost == max(item.example.tokens_lost for item in found.causes)


def test_tokens_lost_by_hand_in_blocks_of_four() -> None:
    # 10 cached tokens are 2 full blocks, 14 sent ones may hit 3; the first block is still the same.
    found = audit(ids(*range(10)), ids(0, 1, 2, 3, 90, *range(5, 14)), block_size=4)
    assert (found.tokens_lost, found.lost_rate) == (4, 4 / 24)
    assert [item.cause for item in found.causes] == ["history_changed"]


def test_what_other_sessions_put_there_is_not_lost() -> None:
    other = ids(7, 8, 9, 10, 11, session="other")
    assert audit(ids(1, 2, 3, 4, 5), ids(7, 8, 9, 10, 11)).tokens_lost == 4
    assert audit(other, ids(1, 2, 3, 4, 5), ids(7, 8, 9, 10, 11)).tokens_lost == 0


def test_an_agent_and_its_helper_in_one_session_lose_nothing() -> None:
    helper = [system("You search."), user("Find trains."), assistant("Found.")]
    requests = [
        turn([ASK]),
        turn(helper[:2]),
        turn([ASK, ANSWER, MORE]),
        turn([*helper, user("Again.")]),
    ]
    found = audit(*requests)
    assert (found.turn_pairs, found.kept, found.rewritten, found.tokens_lost) == (3, 0, 3, 0)
    assert {item.cause: item.pairs for item in found.causes} == {
        "other_thread": 2,
        "other_conversation": 1,
    }


def test_a_break_is_seen_across_a_helper_request_in_between() -> None:
    helper = [system("You search."), user("Find trains.")]
    before, after = turn([system("9:59"), ASK]), turn([system("9:58"), ASK, ANSWER, MORE])
    found = audit(before, turn(helper), after).causes
    assert [item.cause for item in found] == ["timestamp_in_system_prompt", "other_conversation"]
    assert (found[0].example.previous_request, found[0].example.request) == (1, 3)


def test_only_the_system_prompt_is_lost_when_a_session_id_starts_anew() -> None:
    rules = "r" * 100
    first = turn([system("At 9:59 " + rules), user("a" * 1000), assistant("b" * 1000)])
    second = turn([system("At 9:58 " + rules), user("c" * 3000)])
    found = audit(first, second)
    assert [item.cause for item in found.causes] == ["timestamp_in_system_prompt"]
    assert 80 < found.tokens_lost < 200


def test_two_questions_under_one_session_id_are_two_conversations() -> None:
    found = audit(turn([system("Be brief."), ASK]), turn([system("Be brief."), MORE]))
    assert [(item.cause, item.tokens_lost) for item in found.causes] == [("other_conversation", 0)]


def unnamed(*chats: list[Message]) -> list[TokenRequest]:
    """Requests without session ids."""
    requests = [turn(chat) for chat in chats]
    for request in requests:
        request.session = None
    return requests


QUESTION = user("Which trains go north from here on a Sunday evening in winter?")


def test_a_broken_turn_of_a_log_without_session_ids_is_found_by_its_messages() -> None:
    before, after = unnamed(
        [system("9:59 Be brief."), QUESTION],
        [system("9:58 Be brief."), QUESTION, ANSWER, MORE],
    )
    found = audit(before, after)
    assert (found.turn_pairs, found.kept, found.rewritten) == (1, 0, 1)
    assert [item.cause for item in found.causes] == ["timestamp_in_system_prompt"]
    assert found.tokens_lost == lost_by_hand(before, after) > 0
    assert found.between_sessions == ()


def test_short_or_first_messages_link_no_requests() -> None:
    rules = [system(f"You know city number {k} and all its trains.") for k in range(3)]
    short = unnamed([rules[0], ASK], [rules[1], ASK, ANSWER, MORE])
    assert audit(*short).turn_pairs == 0
    same_question = unnamed([rules[0], QUESTION], [rules[1], QUESTION])
    assert audit(*same_question).turn_pairs == 0
    named = [
        turn([rules[0], QUESTION], session="a"),
        turn([rules[1], QUESTION, ANSWER], session="b"),
    ]
    assert audit(*named).turn_pairs == 0


def test_a_log_of_ids_tells_where_but_not_what() -> None:
    assert causes(ids(1, 2, 3, 4), ids(9, 2, 3, 4)) == ["start_changed"]
    assert causes(ids(1, 2, 3, 4), ids(1, 2, 9, 4)) == ["history_changed"]
    assert causes(ids(1, 2, 3, 4), ids(1, 2)) == ["rolled_back"]
    assert causes(ids(1, 2, 3), ids(8, 9), ids(1, 2, 3, 4)) == ["start_changed", "other_thread"]
    assert causes(ids(1, 2, reply=[3, 4]), ids(1, 2, 9, 4, 5)) == ["reply_lost"]


def test_a_reply_that_was_not_complete_yet_is_not_lost() -> None:
    def requests(latency_s: float) -> list[TokenRequest]:
        first = TokenRequest([1, 2], session="s", reply=[3, 4], arrival_s=0, latency_s=latency_s)
        return [first, TokenRequest([1, 2, 9, 4, 5], session="s", arrival_s=10, latency_s=1)]

    assert audit(*requests(5)).tokens_lost == 2
    assert audit(*requests(15)).tokens_lost == 0


def test_pairs_follow_arrival_not_the_order_of_rows() -> None:
    late, early = turn([ASK, ANSWER, MORE]), turn([ASK])
    late.arrival_s, early.arrival_s = 2, 1
    assert audit(late, early).kept == 1


def test_text_appended_with_other_tokens_at_the_seam() -> None:
    before, after = prompt("one two"), prompt("one two three")
    after.prompt = [*after.prompt[:5], 99, *after.prompt[7:]]
    assert causes(before, after) == ["seam_retokenised"]


def test_a_log_whose_texts_are_too_large_to_keep_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chats_module.Chats.__init__, "__defaults__", (10,))
    assert causes(turn([ASK]), turn([MORE, ANSWER, ASK])) == ["text_not_kept"]
    assert causes(prompt("a" * 50), prompt("b" * 50)) == ["text_not_kept"]


def test_excerpts_are_shown_only_when_asked_for_and_hold_no_control_characters() -> None:
    before = turn([user("\x1b[31mred\u202e at 9:59\nnow"), ANSWER])
    after = turn([user("\x1b[31mred\u202e at 9:58\nnow"), ANSWER, MORE])
    hidden = audit(before, after).causes[0].example
    assert (hidden.before, hidden.after) == (None, None)
    assert (hidden.message_index, hidden.role, hidden.char) == (0, "user", 16)
    shown = audit(before, after, show_text=True).causes[0].example
    assert shown.before == "[31mred at 9:59 now"
    assert shown.after == "[31mred at 9:58 now"
    assert msgspec.structs.replace(shown, before=None, after=None) == hidden


def test_a_role_of_the_log_s_own_is_not_repeated() -> None:
    def said(text: str) -> Message:
        return {"role": "\x1b[31mboss", "content": text}

    example = audit(turn([said("go north")]), turn([said("go south"), ANSWER])).causes[0].example
    assert example.role == "other"
    odd = audit(turn([{"role": ["x"], "content": "a"}]), turn([{"role": {}, "content": "b"}, MORE]))
    assert odd.causes[0].example.role == "other"


@pytest.mark.parametrize("depth", [100, 300, 900, 3000])
def test_deep_nesting_is_no_obstacle(depth: int) -> None:
    def nested(leaf: str) -> Message:
        value: Any = leaf
        for _ in range(depth):
            value = [value]
        return {"role": "user", "content": "x", "tool_calls": value}

    requests = [
        TokenRequest([1, 2, 3], session="s", text=[nested("a")]),
        TokenRequest([4, 2, 3], session="s", text=[nested("b"), ANSWER, MORE]),
    ]
    found = audit(*requests)
    kept = depth < 254  # orjson's limit
    assert [item.cause for item in found.causes] == ["message_edited" if kept else "text_not_kept"]


def test_deep_json_in_a_tool_call_is_no_obstacle() -> None:
    def called(leaf: str) -> Message:
        arguments = "[" * 900 + leaf + "]" * 900
        return {"role": "assistant", "tool_calls": [{"function": {"arguments": arguments}}]}

    assert causes(turn([called("1")]), turn([called("2"), ASK])) == ["counter_in_message"]


def test_a_trace_whose_rows_were_cut_is_audited_by_blocks() -> None:
    trace = token_trace([turn([ASK]), turn([MORE, ANSWER]), turn([user("x")], session="t")], 1)
    assert trace.chats is not None
    cut = type(trace)(
        **{name: getattr(trace, name) for name in trace.__slots__ if name != "chats"},
        chats=trace.chats.take(trace.session[:1]),
    )
    assert [found.cause for found in audit_of(cut).causes] == ["history_changed"]


texts = st.text("ab <>/think19:-", max_size=12)
messages = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "tool"]),
        "content": st.none() | texts | st.lists(st.fixed_dictionaries({"text": texts}), max_size=2),
    }
)
odd = messages | st.dictionaries(st.sampled_from(["role", "content", "tool_calls"]), texts)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.lists(odd, max_size=4), st.none() | texts | messages), max_size=8),
    st.integers(1, 5),
    st.booleans(),
)
def test_any_messages_are_audited_within_the_bounds(
    chats: list[tuple[list[Message], Any]], block_size: int, named: bool
) -> None:
    requests = [
        TokenRequest(
            [ord(char) for char in json.dumps(chat)],
            session=row % 2 if named else None,
            text=chat,
            reply_text=reply,
        )
        for row, (chat, reply) in enumerate(chats)
    ]
    trace = token_trace(requests, block_size)
    found = audit_of(trace, show_text=True)
    assert found.turn_pairs == max(0, len(chats) - 2) or not named
    assert found.kept + found.rewritten + found.truncated == found.turn_pairs
    assert sum(item.pairs for item in found.causes) >= found.rewritten + found.truncated
    missed = per_request_of(reuse_of(trace), None).total().miss
    assert 0 <= found.tokens_lost <= missed
    json.dumps(msgspec.to_builtins(found), allow_nan=False)


def test_an_example_is_told_by_file_and_line_of_the_log_however_its_rows_are_ordered(
    tmp_path: Path,
) -> None:
    rows = [(3, [1] * 16 + [2] * 16), (2, [9] * 16), (1, [1] * 32)]
    path = tmp_path / "log.jsonl"
    lines = [json.dumps({"timestamp": t, "session_id": 1, "prompt": p}) for t, p in rows]
    path.write_text("\n\n".join(lines) + "\n")
    trace = read_trace([path])
    example = append_only(reuse_of(trace), np.array([0, 0, 0])).causes[0].example
    assert (example.previous_place, example.place) == (f"{path}:5", f"{path}:1")
    assert audit(ids(*range(20)), ids(*range(40, 60))).causes[0].example.place is None
