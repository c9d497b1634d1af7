"""One crafted log for each thing that breaks a prefix."""

from __future__ import annotations

from pathlib import Path

import pytest
from audit_logs import (
    Message,
    assistant,
    audit,
    lost_by_hand,
    prompt,
    system,
    turn,
    user,
)

from loadkit.analysis.audit import CAUSES

RULES = "You are a careful assistant for train travel in Europe."
ASK, ANSWER, MORE = user("Which trains go north?"), assistant("Many do."), user("And south?")
SEARCH = {"name": "search", "description": "find trains", "parameters": {"type": "object"}}
BOOK = {"name": "book", "description": "buy a ticket", "parameters": {"type": "object"}}


def tool_result(text: str, call: str = "call_1") -> Message:
    return {"role": "tool", "tool_call_id": call, "content": text}


def calls(arguments: str) -> Message:
    function = {"name": "search", "arguments": arguments}
    return {"role": "assistant", "content": None, "tool_calls": [{"function": function}]}


SYSTEM_CHANGES = [
    ("timestamp_in_system_prompt", "Now 2026-11-24 08:15:02", "Now 2026-11-24 08:15:59"),
    ("timestamp_in_system_prompt", "It is 9:59 am", "It is 10:01 am"),
    ("timestamp_in_system_prompt", "clock=1760428681752902", "clock=1760428689752902"),
    ("date_in_system_prompt", "Today is 2026-11-24.", "Today is 2026-11-25."),
    ("date_in_system_prompt", "Today is Monday, 3 March 2025", "Today is Tuesday, 4 March 2025"),
    ("date_in_system_prompt", "Nov 9th, 2026", "Nov 10th, 2026"),
    (
        "id_in_system_prompt",
        "request 3fa85f64-5717-4562-b3fc-2c963f66afa6",
        "request 9b2d1c04-1111-4562-b3fc-2c963f66afa6",
    ),
    ("id_in_system_prompt", "trace deadbeef01", "trace deadbeef99"),
    ("id_in_system_prompt", "call_a1B2c3D4e5F6", "call_z9Y8x7W6v5U4"),
    ("counter_in_system_prompt", "You have 12 tries left.", "You have 9 tries left."),
    ("counter_in_system_prompt", "Budget 3.50 EUR", "Budget 2.75 EUR"),
    ("system_prompt_changed", "Be brief.", "Be friendly."),
    ("system_prompt_changed", "Today is 2026-11-24.", "Today is 2026-11-25, be brief."),
    ("whitespace", "Be  brief.", "Be brief."),
    ("whitespace", "Cafe\u0301", "Caf\u00e9"),
]


@pytest.mark.parametrize(("cause", "old", "new"), SYSTEM_CHANGES)
def test_a_changed_system_prompt_is_told_by_what_changed_in_it(
    cause: str, old: str, new: str
) -> None:
    before = turn([system(RULES + old), ASK])
    after = turn([system(RULES + new), ASK, ANSWER, MORE])
    found = audit(before, after)
    assert [item.cause for item in found.causes] == [cause]
    assert found.causes[0].tokens_lost == lost_by_hand(before, after) > 0
    assert found.causes[0].example.message_index == 0


HISTORY = [system(RULES), ASK, ANSWER, MORE]
THOUGHT = assistant("<think>North is up.</think>\n\nMany do.")
LONG = [system(RULES), ASK, ANSWER, MORE, assistant("Also many."), user("East?")]

MESSAGE_CHANGES: list[tuple[str, list[Message], list[Message], int]] = [
    ("reasoning_stripped", [system(RULES), ASK, THOUGHT, MORE], [*HISTORY, ANSWER, ASK], 2),
    (
        "reasoning_stripped",
        [ASK, {**ANSWER, "reasoning_content": "North is up."}, MORE],
        [ASK, ANSWER, MORE, ANSWER, ASK],
        1,
    ),
    ("message_edited", HISTORY, [system(RULES), ASK, assistant("None do."), MORE, ANSWER, ASK], 2),
    ("messages_dropped", LONG, [system(RULES), MORE, assistant("Also many."), user("East?"), ANSWER], 1),
    ("messages_dropped", LONG, [LONG[2], *LONG[3:], ANSWER, ASK], 0),
    ("message_inserted", HISTORY, [system(RULES), user("Note: strike."), *HISTORY[1:], ANSWER], 1),
    (
        "history_compacted",
        LONG,
        [system(RULES), user("Summary of what was said: trains go both ways."), user("East?")],
        1,
    ),
    ("history_compacted", LONG, [system(RULES), user("This is a summary: trains.")], 1),
    (
        "injected_text_dropped",
        [system(RULES), user("<doc>timetable of 40 trains</doc>\nWhich trains go north?")],
        HISTORY,
        1,
    ),
    ("date_in_message", [user("On 2026-11-24: trains?"), ANSWER, MORE], [user("On 2026-11-25: trains?"), ANSWER, MORE, ANSWER], 0),
    ("id_in_message", [ASK, tool_result("7 trains", "call_a1B2c3D4e5F6"), MORE], [ASK, tool_result("7 trains", "call_q9Y8x7W6v5U4"), MORE, ANSWER], 1),
    ("tool_result_edited", [ASK, calls("{}"), tool_result("ten trains: " + "x" * 50), MORE], [ASK, calls("{}"), tool_result("[cleared]"), MORE, ANSWER], 2),
    ("tool_call_reformatted", [ASK, calls('{"to": "Oslo"}'), MORE], [ASK, calls('{"to":"Oslo"}'), MORE, ANSWER], 1),
    ("tool_call_reformatted", [ASK, ANSWER, MORE], [ASK, {"content": "Many do.", "role": "assistant"}, MORE, ANSWER], 1),
    ("whitespace", [ASK, assistant("Many do. "), MORE], [ASK, ANSWER, MORE, ANSWER], 1),
    ("rolled_back", LONG, LONG[:2], 2),
]  # fmt: skip


@pytest.mark.parametrize(("cause", "old", "new", "index"), MESSAGE_CHANGES)
def test_a_changed_history_is_told_by_what_was_done_to_it(
    cause: str, old: list[Message], new: list[Message], index: int
) -> None:
    before, after = turn(old), turn(new)
    found = audit(before, after)
    assert [item.cause for item in found.causes] == [cause]
    assert found.causes[0].tokens_lost == lost_by_hand(before, after)
    assert found.causes[0].tokens_lost > 0 or cause == "rolled_back"
    assert found.causes[0].example.message_index == index
    assert found.truncated == (cause == "rolled_back")


TOOL_CHANGES = [
    ("tools_reordered", [SEARCH, BOOK], [BOOK, SEARCH], 0),
    ("tools_key_order", [SEARCH, BOOK], [SEARCH, dict(reversed(BOOK.items()))], 1),
    ("tools_changed", [SEARCH], [SEARCH, BOOK], 0),
    ("tools_changed", [SEARCH, BOOK], None, 0),
    ("tools_changed", [SEARCH, BOOK], [SEARCH, {**BOOK, "description": "sell a ticket"}], 1),
    (
        "date_in_tools",
        [SEARCH, {**BOOK, "description": "buy for 2026-11-24"}],
        [SEARCH, {**BOOK, "description": "buy for 2026-11-25"}],
        1,
    ),
]


@pytest.mark.parametrize(("cause", "old", "new", "index"), TOOL_CHANGES)
def test_changed_tools_are_told_by_what_changed_in_them(
    cause: str, old: list[Message], new: list[Message] | None, index: int
) -> None:
    before = turn([system(RULES), ASK], tools=old)
    after = turn(HISTORY, tools=new)
    found = audit(before, after)
    assert [item.cause for item in found.causes] == [cause]
    assert found.causes[0].tokens_lost == lost_by_hand(before, after) > 0
    assert found.causes[0].example.message_index == index
    assert found.causes[0].example.role == "tools"


def test_the_system_prompt_goes_before_the_tools() -> None:
    before = turn([system("It is 9:59."), ASK], tools=[SEARCH, BOOK])
    after = turn([system("It is 9:58."), ASK, ANSWER, MORE], tools=[BOOK, SEARCH])
    assert audit(before, after).causes[0].cause == "timestamp_in_system_prompt"


def test_a_template_that_rewrites_history_is_told_from_an_edit() -> None:
    before = turn([ASK])
    after = turn([ASK, ANSWER, MORE], rendered=[user("Which trains, though?"), ANSWER, MORE])
    found = audit(before, after).causes[0]
    assert found.cause == "template_changed"
    assert found.tokens_lost == lost_by_hand(before, after) > 0


def test_a_template_that_strips_reasoning_is_told_from_the_client() -> None:
    before = turn([ASK, THOUGHT, MORE])
    after = turn([ASK, THOUGHT, MORE, ANSWER, ASK], rendered=[ASK, ANSWER, MORE, ANSWER, ASK])
    assert audit(before, after).causes[0].cause == "reasoning_stripped_by_template"


REPLIES = [
    ("reasoning_stripped", "<think>Up.</think>Many do.", ANSWER),
    ("reply_changed", "A great many of them do.", assistant("Many do.")),
    ("reply_left_out", "Many do.", user("Never mind.")),
    ("whitespace", "Many do. \n", ANSWER),
]


@pytest.mark.parametrize(("cause", "reply", "sent"), REPLIES)
def test_a_reply_that_comes_back_otherwise_is_lost_though_the_prompt_is_kept(
    cause: str, reply: str, sent: Message
) -> None:
    before = turn([ASK], reply=reply)
    after = turn([ASK, sent, MORE, user("More words, so that the prompt is long enough.")])
    found = audit(before, after)
    assert (found.kept, found.rewritten) == (1, 0)
    assert [item.cause for item in found.causes] == [cause]
    assert found.causes[0].tokens_lost == lost_by_hand(before, after) > 0


def test_a_reply_as_a_message_is_compared_by_what_clients_send_back() -> None:
    returned = {**ANSWER, "refusal": None, "annotations": [], "reasoning_content": "North is up."}
    more = user(
        "More words, so that the prompt is long enough for all of the reply to count in it."
    )
    stripped = audit(turn([ASK], reply=returned), turn([ASK, ANSWER, MORE, more]))
    assert [item.cause for item in stripped.causes] == ["reasoning_stripped"]
    edited = audit(turn([ASK], reply=returned), turn([ASK, assistant("Few do."), MORE, more]))
    assert [item.cause for item in edited.causes] == ["reply_changed"]
    del returned["reasoning_content"]
    rendered = audit(turn([ASK], reply=returned), turn([ASK, ANSWER, MORE, more]))
    assert [item.cause for item in rendered.causes] == ["reply_retokenised"]


def test_a_reply_of_other_tokens_than_its_text_gives_is_retokenised() -> None:
    before = turn([ASK], reply="Many do.")
    before.reply = [9] * len(before.reply or ())
    found = audit(before, turn([ASK, ANSWER, MORE])).causes[0]
    assert found.cause == "reply_retokenised"


def test_a_reply_that_comes_back_as_it_was_loses_nothing() -> None:
    found = audit(turn([ASK], reply="Many do."), turn([ASK, ANSWER, MORE]))
    assert (found.kept, found.tokens_lost, found.causes) == (1, 0, ())


PROMPT_CHANGES = [
    ("timestamp_in_prompt", "At 9:59. " + "a" * 300, "At 9:58. " + "a" * 300 + " and on"),
    ("counter_in_prompt", "Step 9. " + "a" * 300, "Step 10. " + "a" * 300 + " and on"),
    ("reasoning_stripped", "Q <think>hm</think>A", "Q A and so on and on and on"),
    ("whitespace", "Q:  why", "Q: why not"),
    ("prompt_edited", "Write of cats " + "a" * 300, "Write of dogs " + "a" * 300),
    ("messages_dropped", "".join(map(chr, range(97, 1097))), "".join(map(chr, range(497, 1197)))),
    ("rolled_back", "abcdefgh", "abcd"),
]


@pytest.mark.parametrize(("cause", "old", "new"), PROMPT_CHANGES)
def test_a_prompt_in_one_string_is_compared_with_what_it_should_start_with(
    cause: str, old: str, new: str
) -> None:
    before, after = prompt(old), prompt(new)
    found = audit(before, after)
    assert [item.cause for item in found.causes] == [cause]
    assert found.causes[0].tokens_lost == lost_by_hand(before, after)


@pytest.mark.parametrize(
    ("cause", "added"),
    [
        ("reply_left_out", "Never mind all that: what of the south, then?"),
        ("reply_changed", "<think>Up.</think>Many do, I think. And so on."),
        ("reasoning_stripped", "Many do not. And so on and on and on and on."),
        ("whitespace", "<think>Up.</think>\n Many do  not. And so on."),
        ("seam_retokenised", "\nAI: <think>Up.</think>Many do not. And so on."),
    ],
)
def test_a_reply_is_looked_for_where_a_prompt_in_one_string_goes_on(cause: str, added: str) -> None:
    reply = "<think>Up.</think>Many do not."
    before, after = prompt("Which trains go north? "), prompt("Which trains go north? " + added)
    before.reply, before.reply_text = [ord(char) for char in reply], reply
    found = audit(before, after)
    assert (found.kept, [item.cause for item in found.causes]) == (1, [cause])
    assert found.causes[0].tokens_lost == lost_by_hand(before, after) > 0


def test_every_cause_but_the_few_below_has_a_log_here() -> None:
    seen = {
        row[0]
        for rows in (SYSTEM_CHANGES, MESSAGE_CHANGES, TOOL_CHANGES, REPLIES, PROMPT_CHANGES)
        for row in rows
    }
    kinds = {code.split("_in_")[0] for code in CAUSES if "_in_" in code}
    assert {code.split("_in_")[0] for code in seen if "_in_" in code} == kinds
    listed = {code for code in CAUSES if "_in_" not in code}
    assert listed - seen == {
        # In tests of their own, here and in test_audit.py:
        "template_changed",
        "reasoning_stripped_by_template",
        "reply_retokenised",
        "seam_retokenised",
        "other_thread",
        "other_conversation",
        "start_changed",
        "history_changed",
        "reply_lost",
        "text_not_kept",
    }


def test_every_cause_stands_in_the_docs_with_its_remedy() -> None:
    docs = (Path(__file__).parents[3] / "docs" / "append-only-audit.md").read_text("utf-8")
    for cause in CAUSES.values():
        assert cause.remedy in docs
        assert "_in_" in cause.code or f"| `{cause.code}` | {cause.title} |" in docs
