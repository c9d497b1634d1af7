"""Token counts: local and remote ones agree on what is counted, and say when they cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tiny_model import make_tokenizer
from traffic_profiles import BATCH, CORPUS, MIXTURE, SYSTEM, constant, profile_of

from loadkit.core.errors import InputError
from loadkit.core.tokenizer import Tokenizer
from loadkit.planning import EndpointCounter, LocalCounter, counter_for, needs_tokens
from loadkit.traffic.build import build_plan


class Served:
    """An endpoint's /tokenize as vLLM has it, behind the control plane's call."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.models: set[object] = set()

    def num_tokens(self, body: Mapping[str, Any]) -> int | None:
        self.models.add(body.get("model"))
        if "messages" in body:
            return len(self.tokenizer.encode_chat(body["messages"], body.get("tools")))
        special = body["add_special_tokens"]
        return len(self.tokenizer.encode(body["prompt"], add_special_tokens=special))


class Silent:
    def num_tokens(self, body: Mapping[str, Any]) -> int | None:
        return None


EXACT = CORPUS | {"message_sentences": None, "prompt_tokens": constant(64), "requests": 5}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(make_tokenizer(), "tiny")


def test_the_endpoint_and_a_local_tokenizer_plan_the_same_bytes(tokenizer: Tokenizer) -> None:
    profile, served = profile_of(EXACT), Served(tokenizer)
    remote = build_plan(profile, EndpointCounter(served, "m"))
    assert remote == build_plan(profile, LocalCounter(tokenizer))
    assert served.models == {"m"}


@pytest.mark.parametrize("text", ["", "hello", "hello world"])
def test_a_text_prompt_counts_alike_at_the_endpoint_which_is_never_sent_an_empty_one(
    tokenizer: Tokenizer, text: str
) -> None:
    class WithBegin(Served):
        def num_tokens(self, body: Mapping[str, Any]) -> int | None:
            assert body["prompt"]
            return int(body["add_special_tokens"]) + (super().num_tokens(body) or 0)

    endpoint, local = EndpointCounter(WithBegin(tokenizer), None), LocalCounter(tokenizer)
    assert endpoint.prompt(text) == 1 + local.prompt(text)


def test_an_endpoint_without_tokenize_is_told_apart_from_a_wrong_count() -> None:
    with pytest.raises(InputError, match="the endpoint has no /tokenize"):
        build_plan(profile_of(EXACT), EndpointCounter(Silent(), None))


def test_nobody_is_asked_where_no_length_is_in_tokens(tokenizer: Tokenizer) -> None:
    for traffic in (CORPUS | {"requests": 1}, BATCH | {"runs": 1}, MIXTURE):
        profile = profile_of(traffic)
        assert not needs_tokens(profile)
        assert counter_for(profile, tokenizer, Silent()) is None


def test_a_length_in_tokens_is_found_wherever_it_stands(tokenizer: Tokenizer) -> None:
    system = {**SYSTEM, "tokens": 30}
    del system["sentences"]
    deep = MIXTURE | {
        "parts": [
            {
                "name": "deep",
                "weight": 1,
                "source": "test",
                "traffic": CORPUS | {"system_prompts": system},
            }
        ]
    }
    for traffic in (EXACT, deep, CORPUS | {"requests": 1, "max_prompt_tokens": 99}):
        assert needs_tokens(profile_of(traffic))
    local = counter_for(profile_of(EXACT), tokenizer, Silent())
    assert isinstance(local, LocalCounter)
    assert isinstance(counter_for(profile_of(EXACT), None, Silent()), EndpointCounter)
    assert counter_for(profile_of(EXACT), None) is None
