"""The whole analysis: names, identities, order of capacities."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadkit.analysis import analyze
from loadkit.core.trace import Trace
from loadkit.traces import TokenRequest, token_trace

PARTS = ("replay_same_session", "replay_cross_session", "continuation", "shared")


def small_log() -> Trace:
    """Blocks of 2: one session of two turns, another that repeats the first prompt."""
    sent = [([1, 2, 3], "a"), ([1, 2, 3, 4, 5], "a"), ([1, 2, 3], "b")]
    return token_trace([TokenRequest(prompt, session=name) for prompt, name in sent], 2)


def test_the_json_has_the_keys_of_the_contract() -> None:
    data = json.loads(json.dumps(analyze(small_log(), [1]).to_dict(), allow_nan=False))
    assert list(data) == [
        "schema",
        "requests",
        "sessions",
        "sessions_inferred",
        "prompt_tokens",
        "block_size",
        "blocks",
        "unique_blocks",
        "infinite",
        "curve",
        "append_only",
        "diversity",
        "warnings",
        "placement",
    ]
    assert data["schema"] == "loadkit.analysis/1"
    assert list(data["infinite"]) == [
        "hit_rate",
        *PARTS,
        "miss",
        "organic_hit_rate",
        "block_hit_rate",
        "per_request_mean_hit_rate",
    ]
    assert list(data["curve"][0]) == [
        "capacity_blocks",
        "capacity_tokens",
        "hit_rate",
        *PARTS,
        "miss_compulsory",
        "miss_capacity",
        "block_hit_rate",
    ]
    assert list(data["append_only"]) == [
        "turn_pairs",
        "kept",
        "rewritten",
        "truncated",
        "tokens_lost",
        "lost_rate",
        "causes",
        "between_sessions",
    ]


def test_a_small_log_by_hand() -> None:
    analysis = analyze(small_log(), [1, None])
    infinite = analysis.infinite
    assert (analysis.requests, analysis.sessions, analysis.prompt_tokens) == (3, 2, 11)
    assert (analysis.blocks, analysis.unique_blocks) == (4, 2)
    assert infinite.continuation == 2 / 11
    assert infinite.replay_cross_session == 2 / 11
    assert infinite.hit_rate == 4 / 11
    assert infinite.organic_hit_rate == 2 / 8
    assert infinite.block_hit_rate == 2 / 4
    assert infinite.per_request_mean_hit_rate == pytest.approx((0 + 2 / 5 + 2 / 3) / 3)
    assert analysis.diversity.distinct_prompts == 2
    assert analysis.diversity.distinct_share == 2 / 3
    # Shares 2/3 and 1/3: exp of their entropy is 3 / 2^(2/3).
    assert analysis.diversity.effective_prompts == pytest.approx(3 / 2 ** (2 / 3))


def test_capacities_keep_the_order_given() -> None:
    curve = analyze(small_log(), [3, None, 1, 3]).curve
    assert [point.capacity_blocks for point in curve] == [3, None, 1, 3]
    assert [point.capacity_tokens for point in curve] == [6, None, 2, 6]


def test_without_capacities_the_curve_ends_where_the_infinite_cache_is() -> None:
    analysis = analyze(small_log())
    sizes = [point.capacity_blocks or 0 for point in analysis.curve]
    assert sizes == sorted(set(sizes))
    assert analysis.curve[-1].hit_rate == analysis.infinite.hit_rate
    assert analysis.curve[-1].miss_capacity == 0


def test_prompts_without_tokens_have_no_rate() -> None:
    analysis = analyze(token_trace([TokenRequest([])], 2))
    assert analysis.infinite.hit_rate is None
    assert analysis.infinite.block_hit_rate is None
    assert analysis.infinite.per_request_mean_hit_rate is None
    assert analysis.curve == ()
    json.dumps(analysis.to_dict(), allow_nan=False)


def test_prompts_below_one_block_hit_nothing() -> None:
    analysis = analyze(token_trace([TokenRequest([1]), TokenRequest([1])], 2))
    assert analysis.infinite.hit_rate == 0.0
    assert analysis.infinite.block_hit_rate is None


def turns(*prompts: list[int]) -> tuple[int, int, int, int]:
    """(turn pairs, kept, rewritten, truncated) of one session in blocks of 2."""
    requests = [TokenRequest(prompt, session="s") for prompt in prompts]
    found = analyze(token_trace(requests, 2), [1]).append_only
    return found.turn_pairs, found.kept, found.rewritten, found.truncated


def test_turns_are_kept_rewritten_or_truncated() -> None:
    assert turns([1, 2, 3]) == (0, 0, 0, 0)
    assert turns([1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4]) == (2, 2, 0, 0)
    assert turns([1, 2, 3, 4], [1, 2]) == (1, 0, 0, 1)
    assert turns([1, 2, 3, 4], [1, 2, 5, 4, 6, 6]) == (1, 0, 1, 0)
    assert turns([1, 2, 3, 4], [9, 2]) == (1, 0, 1, 0)
    assert turns([1, 2], []) == (1, 0, 0, 1)


def test_turns_of_other_sessions_in_between_make_no_pair() -> None:
    sent = [([1, 2], "a"), ([5, 6], "b"), ([1, 2, 3, 4], "a")]
    trace = token_trace([TokenRequest(prompt, session=name) for prompt, name in sent], 2)
    found = analyze(trace, [1]).append_only
    assert (found.turn_pairs, found.kept) == (1, 1)


prompts = st.lists(st.lists(st.integers(0, 1), max_size=8), min_size=1, max_size=20)


@settings(max_examples=150, deadline=None)
@given(prompts, st.integers(1, 3), st.booleans())
def test_identities_hold_on_any_log(
    sent: list[list[int]], block_size: int, with_replies: bool
) -> None:
    requests = [
        TokenRequest(prompt, session=row % 3, reply=prompt[:3] if with_replies else None)
        for row, prompt in enumerate(sent)
    ]
    analysis = analyze(token_trace(requests, block_size))
    infinite = analysis.infinite
    if analysis.blocks:
        expected = 1 - analysis.unique_blocks / analysis.blocks
        assert infinite.block_hit_rate == pytest.approx(expected, abs=1e-12)
    if not analysis.prompt_tokens:
        return
    parts = sum(getattr(infinite, part) for part in PARTS)
    assert parts == pytest.approx(infinite.hit_rate, abs=1e-12)
    assert parts + (infinite.miss or 0) == pytest.approx(1, abs=1e-12)
    rates = [point.hit_rate or 0 for point in analysis.curve]
    assert rates == sorted(rates)
    for point in analysis.curve:
        missed = (point.miss_compulsory or 0) + (point.miss_capacity or 0)
        assert missed + (point.hit_rate or 0) == pytest.approx(1, abs=1e-12)
        assert point.miss_compulsory == pytest.approx(infinite.miss, abs=1e-12)
