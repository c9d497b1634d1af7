"""Texts of a log's requests: kept once, in the trace's order, and never an obstacle."""

from __future__ import annotations

from typing import Any

import numpy as np

from loadkit.core.chats import NO_PART, Chats, for_template

HELLO, REPLY, MORE = (
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "hi"},
    {"role": "user", "content": "more"},
)


def test_a_repeated_message_has_one_id() -> None:
    chats = Chats()
    chats.add_messages([HELLO], None, "hi")
    chats.add_messages([HELLO, REPLY, MORE], [{"name": "search"}])
    first, second = chats[0], chats[1]
    assert first.parts == second.parts[:1]
    assert len(set(second.parts)) == 3
    assert (first.tools, second.reply) == (NO_PART, NO_PART)
    assert chats.part(first.reply) == "hi"
    assert chats.part(second.tools) == [{"name": "search"}]
    assert [chats.part(part) for part in second.parts] == [HELLO, REPLY, MORE]


def test_the_order_of_keys_makes_another_part_and_is_kept() -> None:
    chats = Chats()
    chats.add_messages([{"a": 1, "b": 2}, {"b": 2, "a": 1}], None)
    first, second = (chats.part(part) for part in chats[0].parts)
    assert list(first or ()) == ["a", "b"]
    assert list(second or ()) == ["b", "a"]


def test_rows_follow_the_order_taken_and_the_original_stays() -> None:
    chats = Chats()
    chats.add_prompt("one")
    chats.add_nothing()
    chats.add_prompt("two")
    taken = chats.take(np.array([2, 0, 1])).take(np.array([1, 0]))
    assert len(taken) == 2
    assert [chats.part(taken[row].parts[0]) for row in range(2)] == ["one", "two"]
    assert (len(chats), chats[1].parts) == (3, ())


def test_a_long_prompt_shares_its_pieces_with_the_next_turn() -> None:
    chats, text = Chats(), "abc" * 2000
    chats.add_prompt(text)
    chats.add_prompt(text + "and on")
    first, second = chats[0].parts, chats[1].parts
    assert len(first) > 1
    assert first[:-1] == second[: len(first) - 1]
    assert "".join(chats.part(part) or "" for part in second) == text + "and on"


def test_texts_beyond_the_limit_are_still_told_apart() -> None:
    chats = Chats(max_text_bytes=60)
    chats.add_messages([HELLO, REPLY, HELLO], None)
    parts = chats[0].parts
    assert parts[0] == parts[2] != parts[1]
    assert chats.part(parts[0]) == HELLO
    assert chats.part(parts[1]) is None


def test_integers_of_any_size_are_taken() -> None:
    chats = Chats()
    chats.add_messages([{"n": 10**40}, {"n": 10**40 + 1}], None)
    assert chats[0].parts == (0, 1)


def test_what_is_nested_too_deep_is_equal_to_nothing() -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    chats = Chats()
    chats.add_messages([deep, deep], None)
    assert chats[0].parts == (0, 1)
    assert chats.part(0) is None


def test_integers_of_any_size_come_back() -> None:
    chats = Chats()
    chats.add_messages([{"role": 10**400}, {"role": 2**70}], None)
    assert [chats.part(part) for part in chats[0].parts] == [{"role": 10**400}, {"role": 2**70}]


def test_text_parts_are_joined_and_what_is_absent_is_left_out() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    assert for_template({"role": "user", "content": parts}) == {
        "role": "user",
        "content": "one two",
    }
    assert for_template(
        {"role": "assistant", "content": None, "tool_calls": [1], "name": None}
    ) == {
        "role": "assistant",
        "content": "",
        "tool_calls": [1],
    }
    picture = [{"type": "image_url", "image_url": {"url": "x"}}, *parts]
    assert for_template({"role": "user", "content": picture})["content"] == "one two"


def test_arguments_are_objects_and_reasoning_has_both_names_as_engines_render_them() -> None:
    """vLLM and SGLang read a call's arguments as JSON before the template sees them."""

    def arguments(given: str) -> Any:
        call = {"type": "function", "function": {"name": "f", "arguments": given}}
        return for_template({"tool_calls": [call]})["tool_calls"][0]["function"]["arguments"]

    assert arguments('{"a": 1}') == {"a": 1}
    assert arguments("") == {}
    assert arguments("no json") == "no json"
    assert for_template({"reasoning": "hm"})["reasoning_content"] == "hm"
