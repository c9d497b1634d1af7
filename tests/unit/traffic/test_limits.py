"""Prompts above a limit: refused, cut at their end, or left out; counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from traffic_profiles import CORPUS, profile_of

from loadkit.core.errors import InputError
from loadkit.traffic.build import build_plan
from loadkit.traffic.plan import TrafficPlan


class Letters:
    """A token is a letter; a chat prompt has two more."""

    def text(self, text: str) -> int:
        return len(text)

    def prompt(self, text: str) -> int:
        return len(text)

    def chat(self, messages: Sequence[dict[str, Any]], tools: Sequence[Any] = ()) -> int:
        return 2 + sum(len(message["content"]) for message in messages)


def planned(folder: Path, too_long: str, rows: list[dict[str, Any]]) -> TrafficPlan:
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    traffic = {
        "kind": "replay",
        "log": str(path),
        "max_prompt_tokens": 10,
        "too_long": too_long,
    }
    return build_plan(profile_of(traffic), Letters())


def chat(*texts: str) -> dict[str, Any]:
    roles = ("system", "user") if len(texts) == 2 else ("user",)
    return {"messages": [{"role": r, "content": t} for r, t in zip(roles, texts, strict=True)]}


def test_a_prompt_of_the_limit_is_sent_as_it_is(tmp_path: Path) -> None:
    plan = planned(tmp_path, "refuse", [chat("12345678")])
    assert (plan.truncations, plan.dropped) == (0, 0)


def test_a_longer_one_is_refused_with_its_length(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"11 tokens is above max_prompt_tokens \(10\)"):
        planned(tmp_path, "refuse", [chat("123456789")])


def test_cutting_keeps_the_beginning_and_counts(tmp_path: Path) -> None:
    plan = planned(tmp_path, "truncate", [chat("sys", "123456789"), chat("1234")])
    messages = plan.sessions[0].turns[0].messages
    assert [message["content"] for message in messages] == ["sys", "12345"]
    assert (plan.truncations, plan.dropped, plan.num_requests) == (1, 0, 2)


def test_what_no_cut_can_save_is_left_out_and_counted(tmp_path: Path) -> None:
    plan = planned(tmp_path, "truncate", [chat("a long system", "x"), chat("1234")])
    assert (plan.truncations, plan.dropped, plan.num_requests) == (0, 1, 1)


def test_leaving_out_counts_too(tmp_path: Path) -> None:
    plan = planned(tmp_path, "drop", [chat("123456789"), chat("1234")])
    assert (plan.truncations, plan.dropped, plan.num_requests) == (0, 1, 1)


def test_token_ids_are_cut_by_count_and_need_no_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "ids.jsonl"
    path.write_text(json.dumps({"prompt": [*range(30)]}) + "\n", "utf-8")
    traffic = {
        "kind": "replay",
        "log": str(path),
        "max_prompt_tokens": 10,
        "too_long": "truncate",
    }
    plan = build_plan(profile_of(traffic))
    assert plan.sessions[0].turns[0].prompt == tuple(range(10))
    assert plan.truncations == 1


def test_a_generated_corpus_is_held_to_the_limit_too() -> None:
    traffic = CORPUS | {"requests": 5, "max_prompt_tokens": 60, "too_long": "truncate"}
    plan = build_plan(profile_of(traffic), Letters())
    lengths = {Letters().chat(session.turns[0].messages) for session in plan.sessions}
    assert (lengths, plan.truncations) == ({60}, 5)


def test_text_without_a_tokenizer_says_what_is_missing() -> None:
    with pytest.raises(InputError, match="max_prompt_tokens needs the served tokenizer"):
        build_plan(profile_of(CORPUS | {"requests": 5, "max_prompt_tokens": 60}))
