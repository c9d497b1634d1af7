"""Who caused a hit: the server's word, ours, or nobody's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from run_builders import answered

from loadkit.core.split import Split
from loadkit.runs.prediction import Prediction
from loadkit.runs.splits import split_requests, total_split


def predicted(**columns: Any) -> Prediction:
    n = len(columns["replay"])
    values = {
        "prompt_tokens": np.full(n, 100),
        "own_prefix_tokens": np.zeros(n, int),
        "reusable_tokens": np.zeros(n, int),
        "resident_tokens": None,
    }
    return Prediction(**{**values, **columns})


def test_a_count_is_attributed_to_the_own_prefix_first_and_the_rest_is_shared() -> None:
    record = answered("a", 1, 0.0, cached_tokens=60)
    prediction = predicted(
        replay=(None,), own_prefix_tokens=np.array([48]), reusable_tokens=np.array([80])
    )
    result = split_requests([record], prediction)
    assert result.source == "attributed"
    assert result.splits == (Split(100, continuation=48, shared=12, miss_unexplained=20),)


@pytest.mark.parametrize(
    ("known", "parts", "why"),
    [
        # 96 tokens could hit, 40 did: of the 56 lost, a cache of the server's size had evicted 32.
        ({"resident_tokens": np.array([64])}, (32, 24), "beyond_eviction"),
        # A cache that never filled has evicted nothing.
        ({"resident_tokens": np.array([96])}, (0, 56), "beyond_eviction"),
        ({"resident_tokens": np.array([0])}, (56, 0), None),
        ({"several_caches": True}, (0, 56), "several_caches"),
        ({"resident_tokens": np.array([0]), "caching_off": True}, (0, 56), "caching_off"),
    ],
)
def test_eviction_is_blamed_for_what_it_explains_and_the_rest_is_unexplained(
    known: dict[str, Any], parts: tuple[int, int], why: str | None
) -> None:
    record = answered("a", 1, 0.0, cached_tokens=40)
    prediction = predicted(replay=(None,), reusable_tokens=np.array([96]), **known)
    total = total_split(split_requests([record], prediction), [record])
    assert (total["miss_capacity"], total["miss_unexplained"]) == parts
    assert (total["miss_compulsory"], total["miss_unexplained_why"]) == (4, why)


def test_a_servers_split_with_a_negative_part_is_not_believed() -> None:
    said = {"continuation": -10, "shared": 50}
    record = answered("a", 1, 0.0, cached_tokens=40, server_split=said)
    assert split_requests([record], None).splits == (None,)


def test_hits_of_a_replayed_prompt_are_replay_of_its_kind() -> None:
    records = [answered("a", turn, turn, cached_tokens=96) for turn in range(2)]
    prediction = predicted(replay=("same_session", "cross_session"))
    assert split_requests(records, prediction).splits == (
        Split(100, replay_same_session=96),
        Split(100, replay_cross_session=96),
    )


def test_a_servers_split_of_more_tokens_than_the_prompt_has_is_not_believed() -> None:
    too_much = {"continuation": 90, "shared": 20}
    record = answered("a", 1, 0.0, cached_tokens=90, server_split=too_much)
    prediction = predicted(
        replay=(None,), own_prefix_tokens=np.array([48]), reusable_tokens=np.array([96])
    )
    result = split_requests([record], prediction)
    assert result.source == "attributed"
    assert result.splits == (Split(100, continuation=48, shared=42, miss_unexplained=6),)
    assert split_requests([record], None).splits == (None,)


def test_the_servers_own_split_is_preferred_and_its_replays_get_a_kind_from_the_messages() -> None:
    said = {"replay": 96, "continuation": 0, "shared": 0, "miss_capacity": 0}
    text = [{"role": "user", "content": "same"}]
    records = [
        answered("a", 0, 0.0, messages=text, server_split={"replay": 0, "miss_capacity": 5}),
        answered("b", 0, 1.0, messages=text, cached_tokens=96, server_split=said),
        answered("b", 1, 2.0, messages=text, cached_tokens=96, server_split=said),
    ]
    result = split_requests(records, None)
    assert result.source == "server"
    assert result.splits == (
        Split(100, miss_capacity=5),
        Split(100, replay_cross_session=96),
        Split(100, replay_same_session=96),
    )


def test_without_usage_or_prediction_there_is_no_split_not_a_split_of_zero() -> None:
    silent = [answered("a", 0, 0.0, cached_tokens=None)]
    assert split_requests(silent, predicted(replay=(None,))).source is None
    counted = [answered("a", 0, 0.0, cached_tokens=9)]
    counted_only = split_requests(counted, None)
    assert counted_only.splits == (None,)
    total = total_split(counted_only, counted)
    assert total["source"] is None
    assert total["hit"] is None
    assert total["hit_rate"] is None


def test_more_cached_than_prompt_tokens_counts_as_not_reported() -> None:
    records = [answered("a", 0, 0.0, cached_tokens=101), answered("a", 1, 1.0, cached_tokens=50)]
    result = split_requests(records, predicted(replay=(None, None)))
    assert result.splits[0] is None
    assert total_split(result, records)["prompt_tokens"] == 100


def test_the_parts_of_a_total_sum_to_its_prompt_tokens() -> None:
    records = [
        answered("a", 0, 0.0, cached_tokens=0),
        answered("a", 1, 1.0, cached_tokens=64),
        answered("b", 0, 2.0, cached_tokens=96),
    ]
    prediction = predicted(
        replay=(None, None, "cross_session"),
        own_prefix_tokens=np.array([0, 48, 0]),
        reusable_tokens=np.array([0, 80, 96]),
    )
    total = total_split(split_requests(records, prediction), records)
    assert total["prompt_tokens"] == 300
    assert (total["replay_cross_session"], total["continuation"], total["shared"]) == (96, 48, 16)
    assert total["hit"] == 160
    assert (total["miss"], total["miss_unexplained"], total["miss_compulsory"]) == (140, 16, 124)
    assert (total["miss_capacity"], total["miss_unexplained_why"]) == (0, "capacity_unknown")
    assert total["hit_rate"] == 160 / 300
    # organic: the two new prompts, 64 of their 200 tokens
    assert total["organic_hit_rate"] == 0.32


def test_a_replayed_prompt_without_a_hit_is_not_organic_traffic() -> None:
    records = [answered("a", 0, 0.0, cached_tokens=50), answered("b", 0, 1.0, cached_tokens=0)]
    prediction = predicted(replay=(None, "cross_session"))
    assert total_split(split_requests(records, prediction), records)["organic_hit_rate"] == 0.5


def test_the_half_width_comes_from_differences_between_sessions() -> None:
    # two sessions of 100 tokens with 20 and 40 hits: r = 0.3, deviations 10, 10;
    # 1.96 * sqrt(2 / 1 * 200) / 200 = 0.196
    records = [answered("a", 0, 0.0, cached_tokens=20), answered("b", 0, 1.0, cached_tokens=40)]
    result = split_requests(records, predicted(replay=(None, None)))
    assert total_split(result, records)["hit_rate_half_width"] == pytest.approx(0.196)


def test_one_session_says_nothing_about_the_spread() -> None:
    records = [answered("a", turn, turn, cached_tokens=20 * turn) for turn in range(3)]
    result = split_requests(records, predicted(replay=(None, None, None)))
    assert total_split(result, records)["hit_rate_half_width"] is None
