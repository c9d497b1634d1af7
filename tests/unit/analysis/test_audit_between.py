"""What keeps sessions from sharing a system prompt and tools."""

from __future__ import annotations

import pytest
from audit_logs import Message, assistant, audit, system, turn, user

RULES = "You are a careful assistant for train travel in Europe. " * 3
SEARCH = {"name": "search", "description": "find trains"}
BOOK = {"type": "function", "function": {"name": "book", "description": "buy a ticket"}}


def told(time: str) -> Message:
    return system(f"Now {time}. {RULES}")


def test_a_time_before_the_rules_costs_every_session_the_rules() -> None:
    requests = [
        turn([told(f"9:{minute}"), user(f"Question number {minute}?")], session=str(minute))
        for minute in range(10, 15)
    ]
    found = audit(*requests)
    assert (found.turn_pairs, found.causes, found.tokens_lost) == (0, (), 0)
    assert [item.cause for item in found.between_sessions] == ["timestamp_in_system_prompt"]
    item = found.between_sessions[0]
    assert item.pairs == 4
    # All of the rules but what stands before the time, in each of four sessions.
    assert 4 * 150 < item.tokens_lost < 4 * len(RULES) + 100
    assert item.title == "a time in the system prompt differs from session to session"
    assert (item.example.previous_request, item.example.message_index) == (1, 0)


@pytest.mark.parametrize(
    ("cause", "tools"),
    [
        ("tools_reordered", [BOOK, SEARCH]),
        ("tools_key_order", [dict(reversed(SEARCH.items())), BOOK]),
    ],
)
def test_tools_in_another_form_cost_the_tools(cause: str, tools: list[Message]) -> None:
    found = audit(
        turn([system(RULES), user("a?")], tools=[SEARCH, BOOK], session="a"),
        turn([system(RULES), user("b?")], tools=tools, session="b"),
    )
    assert [item.cause for item in found.between_sessions] == [cause]
    assert found.between_sessions[0].tokens_lost > 20


def test_a_head_that_was_seen_before_loses_nothing() -> None:
    times = ["9:10", "9:11", "9:10", "9:11", "9:11"]
    requests = [turn([told(at), user(f"{k}?")], session=str(k)) for k, at in enumerate(times)]
    assert [item.pairs for item in audit(*requests).between_sessions] == [1]


def test_different_system_prompts_are_no_mistake() -> None:
    one, other = system(RULES), system("You write poems. " * 9)
    found = audit(
        turn([one, user("a?")], session="a"),
        turn([other, user("b?")], session="b"),
        turn([one, user("c?")], tools=[SEARCH], session="c"),
        turn([user("d?")], session="d"),
        turn([user("e?")], tools=[BOOK], session="e"),
    )
    assert found.between_sessions == ()


def test_later_turns_are_the_session_s_own() -> None:
    first, ask = told("9:10"), user("a?")
    found = audit(
        turn([first, ask], session="a"),
        turn([first, ask, assistant("b"), user("c?")], session="a"),
    )
    assert found.between_sessions == ()
