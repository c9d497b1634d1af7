"""Exact lengths, counted by real tokenizers and by one whose rule can be done in the head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_model import make_tokenizer
from traffic_profiles import AGENT, BATCH, CONVERSATION, CORPUS, constant, profile_of

from loadkit.core.errors import InputError
from loadkit.core.tokenizer import Tokenizer, load_tokenizer
from loadkit.planning import LocalCounter
from loadkit.traffic.build import build_plan
from loadkit.traffic.lengths import ExactLengths
from loadkit.traffic.requests import requests_of

LENGTHS = {
    "distribution": "choice",
    "values": [40, 64, 65, 257],
    "min": 1,
    "max": 1000,
    "source": "test",
}


def smollm2() -> Tokenizer | None:
    """The converted model that the demo keeps, where it was made."""
    folders = sorted((Path.home() / ".cache/loadkit/models").glob("smollm2-*/tokenizer.json"))
    return load_tokenizer(folders[0].parent) if folders else None


@pytest.fixture(scope="module", params=["tiny", "smollm2"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "tiny":
        return Tokenizer(make_tokenizer(), "tiny")
    found = smollm2()
    if found is None:
        pytest.skip("the model has not been converted on this machine")
    return found


class PairCounter:
    """A token is two letters, and the chat template writes seven tokens around all messages."""

    def text(self, text: str) -> int:
        return -(-len(text) // 2)

    def prompt(self, text: str) -> int:
        return 1 + self.text(text)

    def chat(self, messages: Sequence[dict[str, Any]], tools: Sequence[Any] = ()) -> int:
        return 7 + sum(self.text(message["content"]) for message in messages)


class WholeCounter(PairCounter):
    """No text but the empty one has fewer than three tokens."""

    def text(self, text: str) -> int:
        return 3 + len(text.split()) if text else 0


def test_whole_prompts_have_exactly_the_tokens_that_were_drawn(tokenizer: Tokenizer) -> None:
    traffic = CORPUS | {
        "message_sentences": None,
        "prompt_tokens": LENGTHS,
        "system_prompts": {"count": 2, "tokens": 11, "source": "test"},
        "requests": 40,
    }
    plan = build_plan(profile_of(traffic), LocalCounter(tokenizer))
    lengths = {len(tokenizer.encode_chat(s.turns[0].messages)) for s in plan.sessions}
    assert lengths == {40, 64, 65, 257}


def test_messages_system_prompts_and_results_have_exactly_theirs(tokenizer: Tokenizer) -> None:
    """Counted as the tokenizer itself encodes each text alone."""

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    system = {"count": 2, "tokens": 90, "source": "test"}
    talk = CONVERSATION | {
        "system_prompts": system,
        "message_sentences": None,
        "message_tokens": constant(33),
        "sessions": 8,
    }
    agent = AGENT | {
        "system_prompts": system,
        "task_sentences": None,
        "task_tokens": constant(33),
        "result_lines": None,
        "result_tokens": constant(33),
        "compaction": None,
        "sub_agents": None,
        "sessions": 4,
    }
    for traffic in (talk, agent):
        plan = build_plan(profile_of(traffic), LocalCounter(tokenizer))
        messages = [m for s in plan.sessions for turn in s.turns for m in turn.messages]
        counted = {(message["role"], count(message["content"])) for message in messages}
        assert counted == {("system", 90), ("user", 33)}


def test_the_parts_of_a_batch_have_exactly_theirs(tokenizer: Tokenizer) -> None:
    traffic = BATCH | {
        "instruction_sentences": None,
        "instruction_tokens": 120,
        "item_sentences": None,
        "item_tokens": constant(50),
        "runs": 1,
    }
    plan = build_plan(profile_of(traffic), LocalCounter(tokenizer))
    for request in requests_of(plan):
        told, item = (message["content"] for message in request.messages)
        assert len(tokenizer.encode(told, add_special_tokens=False)) == 120
        assert len(tokenizer.encode(item, add_special_tokens=False)) == 50


def test_a_counter_that_is_not_additive_is_still_met_exactly() -> None:
    """Words of odd length share a token with their neighbour: the sum over words is too high."""
    exact, counter = ExactLengths(PairCounter()), PairCounter()
    pieces = ["abc de fghij k", "lmnop q r stu", "vwxyz ab"]
    for num_tokens in range(1, 20):
        assert counter.text(exact.fit(pieces, " ", num_tokens)) == num_tokens


def test_a_prompt_below_the_templates_own_tokens_is_refused() -> None:
    with pytest.raises(InputError, match="what stands around it takes 7"):
        ExactLengths(PairCounter()).fit_prompt(["a b c"], " ", 7)


def test_a_length_that_no_text_has_is_refused_not_approximated() -> None:
    with pytest.raises(InputError, match="no text of exactly 2 tokens"):
        ExactLengths(WholeCounter()).fit(["a b c"], " ", 2)


def test_exact_output_is_asked_for_with_the_drawn_length() -> None:
    request = {"max_tokens": constant(17), "exact_output": True}
    plan = build_plan(profile_of(CONVERSATION | {"sessions": 2}, request=request))
    turns = [turn for session in plan.sessions for turn in session.turns]
    assert {(turn.max_tokens, turn.exact_output) for turn in turns} == {(17, True)}


def test_lengths_in_tokens_without_a_tokenizer_say_what_is_missing() -> None:
    traffic = CORPUS | {"message_sentences": None, "message_tokens": constant(9), "requests": 1}
    with pytest.raises(InputError, match="lengths in tokens need the served tokenizer"):
        build_plan(profile_of(traffic))


@pytest.mark.parametrize("systems", [None, {"count": 2, "sentences": 4, "source": "test"}])
def test_a_text_prompt_counts_its_special_tokens_and_no_chat_template(
    tokenizer: Tokenizer, systems: dict[str, Any] | None
) -> None:
    """A begin token that only whole prompts have, as Llama's tokenizer puts it before them."""

    class WithBegin(LocalCounter):
        def prompt(self, text: str) -> int:
            return 1 + super().prompt(text)

    request = {"max_tokens": constant(4), "api": "completions"}
    traffic = CORPUS | {
        "message_sentences": None,
        "prompt_tokens": constant(300),
        "system_prompts": systems,
        "requests": 5,
    }
    plan = build_plan(profile_of(traffic, request=request), WithBegin(tokenizer))
    prompts = [session.turns[0].prompt for session in plan.sessions]
    assert {1 + len(tokenizer.encode(str(prompt))) for prompt in prompts} == {300}
    assert len(set(prompts)) == traffic["requests"]
