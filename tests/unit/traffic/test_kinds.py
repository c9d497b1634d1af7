"""What is particular to a traffic kind."""

from __future__ import annotations

import re
from collections import Counter
from itertools import groupby, islice
from random import Random

import pytest
from traffic_profiles import (
    AGENT,
    BATCH,
    CONVERSATION,
    CORPUS,
    DOCUMENT,
    constant,
    profile_of,
)

from loadkit.core.errors import InputError
from loadkit.corpora import Corpus, load
from loadkit.traffic.build import build_plan
from loadkit.traffic.plan import TrafficPlan
from loadkit.traffic.requests import requests_of

NO_EXTRAS = {"retry_share": 0.0, "sub_agents": None, "compaction": None}


def agents(**changes: object) -> TrafficPlan:
    return build_plan(profile_of(AGENT | {"sessions": 10} | NO_EXTRAS | changes))


def test_a_conversation_keeps_to_one_language_of_its_corpus() -> None:
    """Its first prompts are in German, French, Russian, Chinese, Arabic, Hindi and Japanese: five
    scripts, of which each conversation has one (kana tell Japanese from Chinese)."""
    scripts = {
        "ru": "[\u0400-\u04ff]",
        "ar": "[\u0600-\u06ff]",
        "hi": "[\u0900-\u097f]",
        "ja": "[\u3040-\u30ff]",
        "zh": "[\u4e00-\u9fff]",
    }
    shared = {"count": 7, "exponent": 0.0, "sentences": 4, "source": "test"}
    world = {"corpus": "world-languages", "sessions": 60, "system_prompts": shared}
    spoken: Counter[str] = Counter()
    for session in build_plan(profile_of(CONVERSATION | world)).sessions:
        texts = [message["content"] for turn in session.turns for message in turn.messages]
        texts += [turn.recorded_reply or "" for turn in session.turns]
        found = {next((s for s in scripts if re.search(scripts[s], t)), "latin") for t in texts}
        assert len(found) == 1
        spoken.update(found)
    assert set(spoken) == {*scripts, "latin"}


def test_no_text_says_a_sentence_twice() -> None:
    corpus = load("review-batch")
    pieces = list(islice(corpus.pieces("system", Random(3)), 60))
    assert len(set(pieces)) == 60
    assert (
        len(
            list(
                islice(
                    Corpus(corpus.card, {**corpus.grammar, "sentence": ["So."]}).pieces(
                        "message", Random(3)
                    ),
                    5,
                )
            )
        )
        == 5
    )  # a corpus that has no more goes on all the same


def test_an_agent_sends_its_task_and_then_a_result_a_step() -> None:
    for session in agents().sessions:
        roles = [[message["role"] for message in turn.messages] for turn in session.turns]
        assert roles == [["system", "user"], *[["user"]] * 4]
        assert [turn.think_s for turn in session.turns] == [0, 1, 1, 1, 1]
        assert len(session.tools) == 3
        assert session.tools[0]["function"]["parameters"]["properties"]


def test_results_grow_by_the_declared_factor() -> None:
    """4 lines, then 8, 16 and 32."""
    plan = agents(result_growth=2.0)
    lines = [turn.messages[0]["content"].count("\n") + 1 for turn in plan.sessions[0].turns[1:]]
    assert lines == [4, 8, 16, 32]


def test_a_compaction_replaces_the_history_by_system_prompt_task_and_summary() -> None:
    plan = agents(compaction={"every_steps": 3, "source": "test"})
    session = plan.sessions[0]
    assert [turn.compacts for turn in session.turns] == [False, False, False, True, False]
    assert session.turns[3].messages[:2] == session.turns[0].messages
    assert plan.compactions == 10
    lengths = [len(r.messages) for r in requests_of(plan) if r.session is session]
    assert lengths == [2, 4, 6, 3, 5]


def test_a_retry_sends_the_same_request_again_and_its_answer_stays_single() -> None:
    plan = agents(retry_share=1.0)
    session = plan.sessions[0]
    assert [turn.retry for turn in session.turns] == [False, True] * 4 + [False]
    histories = [request.messages for request in requests_of(plan) if request.session is session]
    assert histories[0] == histories[1]
    assert [len(messages) for messages in histories] == [2, 2, 4, 4, 6, 6, 8, 8, 10]


def test_sub_agents_share_a_prefix_of_their_own_or_all_that_their_parent_knows() -> None:
    subs = {"share": 1.0, "count": constant(3), "steps": constant(2), "source": "test"}
    own = agents(sub_agents=subs)
    asked = [r for r in requests_of(own) if "." in r.session.session and r.number == 0]
    assert len(asked) == 10 * 4 * 3
    assert len({request.messages[0]["content"] for request in asked}) == 1
    inherited = agents(sub_agents=subs | {"history": "inherited"})
    latest: list[object] = []
    for request in requests_of(inherited):
        if "." not in request.session.session:
            latest = [*request.messages, {"role": "assistant"}]
        elif request.number == 0:
            assert request.messages[: len(latest) - 1] == latest[:-1]
            assert len(request.messages) == len(latest) + 1


def test_the_requests_of_sub_agents_are_counted_with_their_session() -> None:
    subs = {"share": 1.0, "count": constant(2), "steps": constant(3), "source": "test"}
    # 5 own requests; 4 of them (a result follows) send 2 sub-agents of 3 requests
    assert agents(sub_agents=subs).num_requests == 10 * (5 + 4 * 2 * 3)


def test_a_batch_sends_its_suite_in_every_run_and_counts_the_wraps() -> None:
    plan = build_plan(profile_of(BATCH | {"runs": 3}))
    prompts = [session.turns[0].messages for session in plan.sessions]
    assert prompts[:5] == prompts[5:10] == prompts[10:]
    assert (plan.wraps, len({session.session for session in plan.sessions})) == (2, 15)
    assert all(session.repeats for session in plan.sessions)
    alone = build_plan(profile_of(BATCH | {"runs": 1}))
    assert (alone.wraps, {session.repeats for session in alone.sessions}) == (0, {False})


def test_a_shuffled_batch_sends_the_same_prompts_in_another_order() -> None:
    plan = build_plan(profile_of(BATCH | {"suite": 30, "runs": 2, "order": "shuffled"}))
    prompts = [session.turns[0].messages[1]["content"] for session in plan.sessions]
    assert prompts[:30] != prompts[30:]
    assert sorted(prompts[:30]) == sorted(prompts[30:])


def test_sessions_about_one_document_share_the_whole_system_message() -> None:
    plan = build_plan(profile_of(DOCUMENT | {"sessions": 60}))
    counts = Counter(session.turns[0].messages[0]["content"] for session in plan.sessions)
    assert len(counts) == 4
    instructions = {text.split("\n\n")[0] for text in counts}
    assert len(instructions) == 1
    # Zipf over 4 with exponent 1: 12/25 of 60 sessions, 4 standard deviations are 15.5
    assert abs(counts.most_common(1)[0][1] - 28.8) < 15.5


def test_reasoning_is_echoed_or_stripped_as_named() -> None:
    for choice in ("echoed", "stripped"):
        plan = build_plan(profile_of(CONVERSATION | {"sessions": 2, "reasoning": choice}))
        assert {session.reasoning for session in plan.sessions} == {choice}


def test_a_corpus_may_have_shared_system_prompts() -> None:
    system = {"count": 2, "sentences": 3, "source": "test"}
    plan = build_plan(profile_of(CORPUS | {"requests": 20, "system_prompts": system}))
    firsts = {session.turns[0].messages[0]["content"] for session in plan.sessions}
    assert len(firsts) == 2
    assert {session.shared for session in plan.sessions} == {1}


def test_openings_of_ten_times_a_thousand_messages_all_differ() -> None:
    plan = build_plan(profile_of(CORPUS | {"requests": 10_000}))
    openings = {session.turns[0].messages[0]["content"][:20] for session in plan.sessions}
    assert len(openings) == 10_000


def test_completions_get_the_text_itself_and_no_messages() -> None:
    request = {"max_tokens": constant(4), "api": "completions"}
    plan = build_plan(profile_of(CORPUS | {"requests": 2}, request=request))
    assert all(isinstance(session.turns[0].prompt, str) for session in plan.sessions)
    assert {session.turns[0].messages for session in plan.sessions} == {()}


def test_completions_are_refused_where_a_conversation_needs_turns() -> None:
    request = {"max_tokens": constant(4), "api": "completions"}
    with pytest.raises(ValueError, match=r"request\.api: completions have no turns"):
        profile_of(CONVERSATION | {"sessions": 1}, request=request)


def test_a_kind_says_which_text_its_corpus_lacks() -> None:
    with pytest.raises(InputError, match="assistant-chat: the corpus has no `document_open`"):
        build_plan(profile_of(DOCUMENT | {"sessions": 1, "corpus": "assistant-chat"}))


def test_a_part_of_a_mixture_has_answers_of_its_own_length() -> None:
    parts = [
        {"name": "short", "weight": 1, "traffic": CORPUS, "max_tokens": constant(3), "source": "x"},
        {"name": "usual", "weight": 1, "traffic": CORPUS, "source": "x"},
    ]
    plan = build_plan(profile_of({"kind": "mixture", "sessions": 20, "parts": parts}))
    by_name = sorted((session.name, session.turns[0].max_tokens) for session in plan.sessions)
    assert {pair for pair, _ in groupby(by_name)} == {("short", 3), ("usual", 8)}


def test_parts_with_the_same_corpus_stay_different_from_each_other() -> None:
    parts = [
        {"name": name, "weight": 1, "traffic": CORPUS, "source": "test"} for name in ("one", "two")
    ]
    plan = build_plan(profile_of({"kind": "mixture", "sessions": 300, "parts": parts}))
    openings = {session.turns[0].messages[0]["content"][:20] for session in plan.sessions}
    assert len(openings) == 300


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([{"name": "a", "traffic": CORPUS, "source": "x"}], "a: `weight` is missing"),
        (
            [{"name": "a", "weight": 1, "traffic": CORPUS | {"requests": 3}, "source": "x"}],
            "a: `traffic.requests` would have no effect",
        ),
        (
            [{"name": "a", "weight": 1, "traffic": CORPUS, "source": "x"}] * 2,
            "two parts have the same name",
        ),
    ],
)
def test_a_mixture_that_contradicts_itself_is_refused(parts: list[object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        profile_of({"kind": "mixture", "sessions": 3, "parts": parts})
