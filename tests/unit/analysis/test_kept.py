"""States and windows that are kept at a few places: by eye, and against a plain reading of the rule."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadkit.analysis import analyze
from loadkit.analysis.block_sizes import rates_at
from loadkit.analysis.kept import SHARED_POOL
from loadkit.analysis.per_request import per_request
from loadkit.forecast import forecast
from loadkit.traces import TokenRequest, token_trace


def hits(kept: tuple[int, ...], block_size: int, *sent: TokenRequest) -> list[int]:
    trace = replace(token_trace(sent, block_size), kept_blocks=kept)
    return per_request(trace, None).reusable_tokens.tolist()


def prompts(*lists: list[int]) -> list[TokenRequest]:
    return [TokenRequest(tokens, session=row) for row, tokens in enumerate(lists)]


SYSTEM = [*range(100, 104)]  # two blocks of two


def test_a_new_common_beginning_hits_from_the_third_request_on() -> None:
    """vLLM issue 45238: the state of the first lies behind the common part, in its own tokens."""
    sent = prompts(*([*SYSTEM, k, k, k, k, k] for k in range(4)))
    assert hits((), 2, *sent) == [0, 4, 4, 4]
    assert hits((1,), 2, *sent) == [0, 0, 4, 4]


def test_a_common_beginning_that_is_nearly_the_prompt_hits_at_once() -> None:
    sent = prompts(*([*SYSTEM, k] for k in range(3)))
    assert hits((1,), 2, *sent) == [0, 4, 4]


def test_the_identical_prompt_again_hits_its_last_whole_block() -> None:
    sent = prompts([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 2, 3, 4], [1, 2, 3, 4])
    assert hits((1,), 2, *sent) == [0, 4, 0, 2]


def test_a_reply_is_reusable_once_a_later_prompt_contains_it() -> None:
    first = TokenRequest([1, 2, 3], reply=[4, 5, 6, 7, 8], session=1)
    second = TokenRequest([1, 2, 3, 4, 5, 6, 7, 8, 9], session=1)
    third = TokenRequest([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], session=1)
    assert hits((), 2, first, second, third) == [0, 8, 8]
    assert hits((1,), 2, first, second, third) == [0, 2, 8]


def test_a_window_needs_all_of_its_blocks_and_a_short_beginning_all_it_has() -> None:
    """Kept after the first: blocks 2 and 3 of three; the second shares two, of which one is kept."""
    long, other, again = [1, 1, 2, 2, 3, 3, 9], [1, 1, 2, 2, 7, 7, 9], [1, 1, 2, 2, 8, 8, 9]
    assert hits((2,), 2, *prompts(long, other, again)) == [0, 0, 4]
    short, other = [1, 1, 2, 2, 9], [1, 1, 7, 7, 9]
    assert hits((2,), 2, *prompts(short, other)) == [0, 2]


def plain(kept: tuple[int, ...], sent: list[list[int]]) -> list[int]:
    """The rule in sets of prefixes, blocks of one token."""
    seen: set[tuple[int, ...]] = set()
    places: list[set[tuple[int, ...]]] = [set() for _ in kept]
    found = []
    for prompt in sent:
        most = len(prompt) - 1
        known = max(k for k in range(most + 1) if k == 0 or tuple(prompt[:k]) in seen)

        def has(kind: int, end: int, prompt: list[int] = prompt) -> bool:
            first = max(0, end - kept[kind])
            return all(tuple(prompt[: k + 1]) in places[kind] for k in range(first, end))

        hit = max(e for e in range(known + 1) if all(has(kind, e) for kind in range(len(kept))))
        for end in {most, known} if known > hit else {most}:
            for kind, need in enumerate(kept):
                places[kind] |= {tuple(prompt[: k + 1]) for k in range(max(0, end - need), end)}
        seen |= {tuple(prompt[: k + 1]) for k in range(len(prompt))}
        found.append(hit)
    return found


@given(
    st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=1, max_size=14),
    st.sampled_from([(1,), (2,), (3,), (1, 3)]),
)
def test_it_is_the_rule_read_plainly(sent: list[list[int]], kept: tuple[int, ...]) -> None:
    assert hits(kept, 1, *prompts(*sent)) == plain(kept, sent)


RECORDED = json.loads(Path(__file__).with_name("vllm_places.json").read_text())["cases"]


def conversations(seed: int, count: int) -> list[TokenRequest]:
    """What tests/validation/record_vllm_places.py served: sessions over three system prompts."""
    draw, replies = random.Random(seed), random.Random(5)

    def tokens(number: int) -> list[int]:
        return [draw.randrange(3, 1000) for _ in range(number)]

    systems = [tokens(number) for number in (410, 230, 700)]
    steps: list[tuple[int | None, list[int], int]] = []
    for _ in range(count):
        if steps and draw.random() < 0.45:
            after: int | None = len(steps) - 1 - draw.randrange(min(6, len(steps)))
            more, reply = tokens(draw.randrange(5, 120)), draw.choice((3, 20, 60))
        else:
            after, system = None, draw.choice(systems)
            more, reply = system + tokens(draw.randrange(20, 500)), draw.choice((3, 20, 60))
        steps.append((after, more, reply))
        if draw.random() < 0.1:
            steps.append(steps[-1])
    whole: list[list[int]] = []
    sent = []
    for row, (after, more, length) in enumerate(steps):
        prompt = [*([] if after is None else whole[after]), *more]
        reply_ids = [replies.randrange(3, 1000) for _ in range(length)]
        whole.append(prompt + reply_ids)
        sent.append(TokenRequest(prompt, reply=reply_ids[:-1], session=row))
    return sent


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case["name"])
def test_it_is_what_vllm_0_32_served_request_by_request(case: dict[str, Any]) -> None:
    """389 requests on vLLM's own scheduler and cache managers, one after another."""
    sent = conversations(case["seed"], 50)
    assert hits(tuple(case["kept"]), case["block_size"], *sent) == case["cached"]
    every = sum(hits((), case["block_size"], *sent))
    assert every > sum(case["cached"]) or not case["kept"]


def hybrid_log(sessions: int = 120) -> list[TokenRequest]:
    """One common beginning of 40 tokens, 13 own ones each, over 20 minutes."""
    common = list(range(1000, 1040))
    return [
        TokenRequest([*common, *range(2000 + 20 * k, 2013 + 20 * k)], session=k, arrival_s=10.0 * k)
        for k in range(sessions)
    ]


def test_analysis_and_forecast_at_the_logs_own_traffic_are_one_figure() -> None:
    trace = replace(token_trace(hybrid_log(), 8), kept_blocks=(1,))
    found = analyze(trace)
    assert found.infinite.hit_rate == 118 * 40 / (120 * 53)
    assert forecast(trace, 1).hit_rate.estimate == found.infinite.hit_rate
    assert SHARED_POOL in found.warnings


def test_a_forecast_at_other_traffic_says_that_it_is_an_upper_bound() -> None:
    trace = replace(token_trace(hybrid_log(), 8), kept_blocks=(1,))
    assert forecast(trace, 1).scenario.kept_blocks == (1,)
    answer = forecast(trace, 3)
    assert answer.scenario.kept_blocks == ()
    every = forecast(replace(trace, kept_blocks=()), 3)
    assert answer.hit_rate == every.hit_rate
    assert any("an upper bound" in text and "74.8% to 74.2%" in text for text in answer.warnings)


def test_the_same_log_in_larger_blocks() -> None:
    trace = token_trace(hybrid_log(3), 8)
    found = {rate.block_size: rate for rate in rates_at(trace, (4, 8, 16, 48, 64))}
    assert list(found) == [8, 16, 48, 64]
    assert [rate.hit_rate for rate in found.values()] == pytest.approx(
        [2 * 40 / 159, 2 * 32 / 159, 0, 0]
    )
    assert [rate.long_enough for rate in found.values()] == [3, 3, 3, 0]
    assert np.array_equal(trace.prompt_tokens, [53, 53, 53])
