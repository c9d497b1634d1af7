"""A cache that was not empty at the start shows, and the note says what to do."""

from __future__ import annotations

from typing import Any

import pytest
from run_builders import answered

from loadkit.runs.warm import foreign_replay_tokens, warm_note


def counts(cached: int | None, possible: int | None, unanswered: int = 0) -> dict[str, Any]:
    return {
        "usage": {"cached_tokens": cached},
        "prediction_infinite_tokens": possible,
        "unanswered_requests": unanswered,
    }


def test_a_replay_of_a_prompt_that_the_run_sent_once_is_from_before_it() -> None:
    rows = [answered("a", 0, 0.0, server_split={"replay": 64}), answered("b", 0, 1.0)]
    note = warm_note(rows, rows, counts(64, None)) or ""
    assert "64 tokens of prompts from before this run" in note
    assert "--reset" in note
    assert "--seed" in note


@pytest.mark.parametrize("outcome", ["ok", "timeout"])
def test_a_prompt_that_the_run_sent_twice_explains_its_replay(outcome: str) -> None:
    same = [{"role": "user", "content": "hello"}]
    first = answered("a", 0, 0.0, messages=same, outcome=outcome)
    second = answered("b", 0, 1.0, messages=same, server_split={"replay_cross_session": 64})
    assert foreign_replay_tokens([first, second], [second]) == 0


@pytest.mark.parametrize(
    ("counts_", "is_warm"),
    [
        (counts(101, 100), True),
        (counts(100, 100), False),
        (counts(101, 100, unanswered=1), False),
        (counts(None, 100), False),
        (counts(101, None), False),
    ],
)
def test_more_cached_tokens_than_could_be_reused_are_from_before(
    counts_: dict[str, Any], is_warm: bool
) -> None:
    assert (warm_note([], [], counts_) is not None) is is_warm
