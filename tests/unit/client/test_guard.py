"""The append-only guard: what it accepts, what it refuses, and where it says the change is."""

from __future__ import annotations

from typing import Any

import pytest

from loadkit.client.guard import AppendOnlyGuard, Mutation

TOOLS = [{"type": "function", "function": {"name": "search"}}]


def chat(*texts: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text} for text in texts]


def test_a_growing_history_is_accepted() -> None:
    guard = AppendOnlyGuard()
    assert guard.check("s", chat("a")) == "first"
    assert guard.check("s", chat("a", "b", "c")) == "extended"
    assert guard.check("s", chat("a", "b", "c", "d")) == "extended"
    assert (guard.num_refused, guard.num_resent) == (0, 0)


def test_an_identical_resend_is_accepted_and_counted() -> None:
    guard = AppendOnlyGuard()
    guard.check("s", chat("a", "b"))
    assert guard.check("s", chat("a", "b")) == "resent"
    assert guard.num_resent == 1


def test_key_order_is_no_change() -> None:
    guard = AppendOnlyGuard()
    guard.check("s", [{"role": "user", "content": "a"}])
    assert guard.check("s", [{"content": "a", "role": "user"}]) == "resent"


@pytest.mark.parametrize(
    ("changed", "index"),
    [
        (chat("a", "X", "c", "d"), 1),
        (chat("X", "b", "c"), 0),
        (chat("a", "b"), 2),
        ([], 0),
    ],
)
def test_a_rewrite_is_refused_at_its_first_changed_message(
    changed: list[dict[str, Any]], index: int
) -> None:
    guard = AppendOnlyGuard()
    guard.check("s", chat("a", "b", "c"))
    with pytest.raises(Mutation, match=f"at message {index}") as caught:
        guard.check("s", changed)
    assert caught.value.message_index == index
    assert guard.num_refused == 1


def test_changed_tools_are_a_rewrite_of_everything() -> None:
    guard = AppendOnlyGuard()
    guard.check("s", chat("a"), TOOLS)
    with pytest.raises(Mutation, match="its tools changed") as caught:
        guard.check("s", chat("a", "b"), [])
    assert caught.value.message_index is None


def test_a_refused_request_does_not_become_the_history() -> None:
    guard = AppendOnlyGuard()
    guard.check("s", chat("a"))
    with pytest.raises(Mutation):
        guard.check("s", chat("X", "b"))
    assert guard.check("s", chat("a", "b")) == "extended"


def test_sessions_do_not_know_each_other_and_can_be_forgotten() -> None:
    guard = AppendOnlyGuard()
    guard.check("one", chat("a"))
    assert guard.check("two", chat("b")) == "first"
    guard.forget("one")
    assert guard.check("one", chat("z")) == "first"


def test_moving_text_between_messages_is_a_change() -> None:
    guard = AppendOnlyGuard()
    guard.check("s", chat("ab", "c"))
    with pytest.raises(Mutation):
        guard.check("s", chat("a", "bc"))
