"""Declared reuse against found reuse, on plans whose shared tokens can be counted by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_model import make_tokenizer
from traffic_profiles import CORPUS, profile_of

from loadkit import profiles
from loadkit.core.errors import InputError
from loadkit.core.tokenizer import Tokenizer
from loadkit.planning import check_fresh
from loadkit.traffic.build import build_plan
from loadkit.traffic.plan import SessionPlan, TrafficPlan, Turn


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(make_tokenizer(), "tiny")


def ids(name: str, prompt: list[int], **more: Any) -> SessionPlan:
    return SessionPlan(name, 0.0, (Turn((), 1, prompt=tuple(prompt)),), "ids", **more)


def plan(*sessions: SessionPlan) -> TrafficPlan:
    return TrafficPlan("test", sessions)


def test_a_whole_block_in_common_is_accidental_when_nothing_declares_it(
    tokenizer: Tokenizer,
) -> None:
    one, other = [1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 5, 6, 0, 0, 0]
    report = check_fresh(plan(ids("a", one), ids("b", other)), tokenizer, 4)
    assert (report.accidental, report.edge, report.prompt_tokens) == (4, 0, 18)
    assert report.examples == ("b turn 0: 4 tokens",)
    assert report.hit_rate == pytest.approx(4 / 18)
    with pytest.raises(InputError, match=r"profile x: 4 of 18 prompt tokens .* b turn 0: 4"):
        report.require_fresh("profile x")


def test_a_declared_prefix_is_shared_and_the_block_that_it_ends_in_is_its_edge(
    tokenizer: Tokenizer,
) -> None:
    """6 declared tokens in blocks of 4: the second block hits with 2 tokens that nobody declared,
    the third with 4 more."""
    one, other = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 1, 1, 7], [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 7]
    report = check_fresh(plan(ids("a", one, shared=6), ids("b", other, shared=6)), tokenizer, 4)
    assert (report.shared, report.edge, report.accidental) == (6, 2, 0)
    longer = [*one[:12], 0]
    report = check_fresh(plan(ids("a", one, shared=6), ids("b", longer, shared=6)), tokenizer, 4)
    assert (report.shared, report.edge, report.accidental) == (6, 2, 4)


def test_what_repeats_on_purpose_is_no_accident(tokenizer: Tokenizer) -> None:
    prompt = [*range(1, 10)]
    report = check_fresh(plan(ids("a", prompt), ids("b", prompt, repeats=True)), tokenizer, 4)
    assert (report.repeats, report.accidental) == (8, 0)
    report.require_fresh("test")


def chat(name: str, *texts: str, replies: str = "live", **more: Any) -> SessionPlan:
    turns = tuple(
        Turn(({"role": "user", "content": text},), 1, recorded_reply="yes") for text in texts
    )
    return SessionPlan(name, 0.0, turns, "chat", replies=replies, **more)


def test_a_sessions_own_history_is_continuation_up_to_its_full_blocks(
    tokenizer: Tokenizer,
) -> None:
    session = chat("a", "hello world " * 9, "answer the question please")
    first = len(tokenizer.encode_chat(session.turns[0].messages))
    report = check_fresh(plan(session), tokenizer, 4)
    assert report.continuation == first // 4 * 4
    assert (report.shared, report.edge, report.accidental) == (0, 0, 0)


def test_a_retry_is_the_sessions_own_replay(tokenizer: Tokenizer) -> None:
    first = Turn(({"role": "user", "content": "hello world " * 9},), 1)
    session = SessionPlan("a", 0.0, (first, Turn((), 1, retry=True)), "chat")
    length = len(tokenizer.encode_chat(first.messages))
    report = check_fresh(plan(session), tokenizer, 4)
    assert report.retries == (length - 1) // 4 * 4
    assert (report.continuation, report.accidental) == (0, 0)


def test_the_same_question_from_two_sessions_is_found(tokenizer: Tokenizer) -> None:
    text = "what does the cache keep of a prompt? " * 4
    found = check_fresh(plan(chat("a", text), chat("b", text)), tokenizer, 16)
    assert found.accidental > 0
    quick = check_fresh(
        plan(chat("a", text, "x"), chat("b", text, "y")), tokenizer, 16, openings_only=True
    )
    assert (quick.requests, quick.accidental) == (2, found.accidental)


def test_sub_agents_that_inherit_share_what_their_parent_knows(tokenizer: Tokenizer) -> None:
    def sub(name: str, text: str) -> SessionPlan:
        return chat(name, text, inherits_history=True)

    task = {"role": "user", "content": "keep the keys and values of prompts " * 5}
    subs = sub("a.1", "zebra stripes " * 9), sub("a.2", "under water " * 9)
    parent = SessionPlan("a", 0.0, (Turn((task,), 1, sub_agents=subs),), "agent")
    report = check_fresh(plan(parent), tokenizer, 16)
    assert report.accidental == 0
    # both have the parent's request in front, save for its last unfinished block
    assert report.shared >= 2 * (len(tokenizer.encode_chat([task])) // 16 * 16)


def test_a_corpus_without_declared_sharing_has_no_block_in_common_behind_the_template(
    tokenizer: Tokenizer,
) -> None:
    """The tiny tokenizer has two letters a token: the block that the template's words end in does
    agree for two of these 400 openings; no other block does."""
    report = check_fresh(build_plan(profile_of(CORPUS | {"requests": 400})), tokenizer, 16)
    assert (report.continuation, report.repeats, report.accidental) == (0, 0, 0)
    assert report.shared + report.edge <= 2 * 16


def test_the_mirages_are_nearly_all_repeats(tokenizer: Tokenizer) -> None:
    for name, share in (("batch-eval", 2 / 3), ("replay-smoke", 11 / 12)):
        report = check_fresh(build_plan(profiles.load(name)), tokenizer, 16)
        assert report.repeats / report.prompt_tokens > 0.9 * share
        assert report.accidental == 0


@pytest.mark.parametrize(("sharing", "accidental"), [("refuse", True), ("allow", False)])
def test_a_files_own_instruction_is_accidental_until_the_profile_allows_it(
    sharing: str, accidental: bool, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    text = "Please label the following review by its mood, with one word: "
    rows = [{"messages": [{"role": "user", "content": text + str(n) * 9}]} for n in range(3)]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    traffic = {"kind": "corpus", "corpus": str(path), "requests": 3, "sharing": sharing}
    report = check_fresh(build_plan(profile_of(traffic)), tokenizer, 16)
    assert (report.accidental > 0) == accidental
    assert (report.shared > 50) == (not accidental)
