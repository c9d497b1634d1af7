"""The whole answer: traffic, expiry, replicas, cold starts, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from trials import sample_sessions, take_requests
from worlds import make_world

from loadkit.analysis import analyze
from loadkit.analysis.nodes import node_stream
from loadkit.analysis.weighted import weighted_hits
from loadkit.core.errors import InputError
from loadkit.core.trace import Trace
from loadkit.forecast import forecast
from loadkit.traces import TokenRequest, token_trace

PARTS = ("replay_same_session", "replay_cross_session", "continuation", "shared", "miss")


@cache
def world(name: str = "org_tree") -> Trace:
    return make_world(name, 8, 0.08)


def test_more_traffic_is_answered_with_an_interval_and_parts_that_sum_to_one() -> None:
    answer = forecast(world(), 5.0, 3000, target_points=50)
    rate = answer.hit_rate
    assert answer.status == "ok"
    assert rate.method == "superposition"
    assert None not in (rate.low, rate.estimate, rate.high)
    assert 0 <= rate.low < rate.estimate < rate.high <= 1  # type: ignore[operator]
    parts = answer.to_dict()["split"]
    assert sum(parts[part] for part in PARTS) == pytest.approx(1)
    assert rate.estimate == pytest.approx(1 - parts["miss"])
    check = answer.self_check
    assert check["private_rate"] <= check["shareable_rate"]
    assert 0 <= check["alpha"] <= 1
    json.dumps(answer.to_dict(), allow_nan=False)


def test_the_curve_rises_and_has_intervals() -> None:
    answer = forecast(world(), 3.0, curve_blocks=[50, 500, 5000, None])
    points: Any = answer.curve
    assert [point.capacity_blocks for point in points] == [50, 500, 5000, None]
    rates = [point.hit_rate for point in points]
    assert rates == sorted(rates)
    assert all(point.low <= point.hit_rate <= point.high for point in points)


def test_a_wide_interval_is_inconclusive_and_says_how_many_sessions_would_do() -> None:
    answer = forecast(world(), 5.0, 3000, target_points=0.5)
    assert answer.status == "inconclusive"
    assert answer.hit_rate.estimate is not None
    assert answer.needs is not None
    assert "sessions are needed (an order of magnitude)" in answer.needs


def test_inferred_sessions_widen_the_interval_by_eight_points() -> None:
    known = forecast(world(), 5.0, target_points=50).self_check["half_width_points"]
    inferred = forecast(replace(world(), sessions_inferred=True), 5.0)
    assert inferred.self_check["half_width_points"] == pytest.approx(known + 8)
    assert inferred.status == "inconclusive"
    assert "session ids in the log" in (inferred.needs or "")


def test_the_seed_decides_all() -> None:
    first, again = (forecast(world(), 4.0, 2000, seed=3).to_dict() for _ in range(2))
    assert first == again


def test_less_traffic_is_the_mean_of_thinned_logs() -> None:
    answer = forecast(world(), 0.5, target_points=50)
    assert answer.hit_rate.method == "thinning"
    own = forecast(world(), 1.0).hit_rate.estimate
    assert own is not None
    assert answer.hit_rate.estimate is not None
    assert own - 0.15 < answer.hit_rate.estimate < own


def test_expiry_at_1x_is_counted() -> None:
    answer = forecast(world(), 1.0, 2000, ttl_s=60.0)
    counted = weighted_hits(node_stream(world()), [2000], [60.0]).split(0)
    assert answer.hit_rate.method == "exact"
    assert answer.hit_rate.estimate == counted.rate("hit")
    assert answer.baselines.own_rate == counted.rate("hit")
    assert answer.hit_rate.estimate < (forecast(world(), 1.0, 2000).hit_rate.estimate or 0)


def test_a_shorter_cold_start_hits_less_than_the_whole_log() -> None:
    whole = forecast(world(), 1.0).hit_rate.estimate
    short = forecast(world(), 1.0, horizon_s=600.0, target_points=50)
    assert short.hit_rate.method == "rerun"
    assert short.hit_rate.estimate is not None
    assert whole is not None
    assert short.hit_rate.estimate < whole


def test_replicas_that_do_not_share_hit_less() -> None:
    rates = {
        routing: forecast(world(), 2.0, 4000, replicas=4, routing=routing).hit_rate.estimate or 0
        for routing in ("pooled", "sticky", "random", "prefix-aware")
    }
    assert rates["random"] < rates["sticky"] < rates["pooled"]
    assert rates["prefix-aware"] > rates["random"]


def test_a_longer_horizon_is_labelled_by_what_it_assumes() -> None:
    answer = forecast(world(), 1.0, horizon_s=7200.0, target_points=50)
    assert answer.hit_rate.method == "time_prefix"
    assert answer.assumes == "if traffic stays as in your window"
    parts = answer.to_dict()["split"]
    assert sum(parts[part] for part in PARTS) == pytest.approx(1)


def test_a_corpus_without_time_is_forecast_for_an_infinite_cache_only() -> None:
    corpus = replace(world(), arrival_s=None)
    answer = forecast(corpus, 5.0, target_points=50)
    timed = forecast(world(), 5.0, target_points=50).hit_rate.estimate
    assert answer.hit_rate.estimate == pytest.approx(timed, abs=0.02)
    assert answer.curve == ()
    assert "no timestamps" in (forecast(corpus, 5.0, 3000).needs or "")


def test_a_corpus_without_time_has_no_curve_at_1x_and_a_capacity_holds_for_its_order() -> None:
    corpus = replace(world(), arrival_s=None)
    assert forecast(corpus, 1.0).curve == ()
    assert forecast(corpus, 1.0).assumes == "if traffic stays as in your log"
    counted = forecast(corpus, 1.0, 3000)
    assert counted.hit_rate.estimate == analyze(corpus, [3000]).curve[0].hit_rate
    assert "in the order of your log, which has no timestamps" in (counted.assumes or "")


def test_the_half_width_in_the_message_is_the_whole_one() -> None:
    inferred = forecast(replace(world(), sessions_inferred=True), 5.0, target_points=1)
    half = inferred.self_check["half_width_points"]
    assert f"±{half:.1f} points wide, asked for were ±1: about" in (inferred.needs or "")
    assert "session ids in the log would take 8 of the points off" in (inferred.needs or "")


def test_engines_differ_in_what_of_a_repeated_prompt_may_hit() -> None:
    trace = world()
    rates = {e: forecast(trace, 1.0, engine=e).hit_rate.estimate or 0 for e in ("vllm", "none")}
    assert rates["vllm"] == analyze(trace, engine="vllm").infinite.hit_rate
    assert rates["none"] == analyze(trace, engine="none").infinite.hit_rate
    grown = {e: forecast(trace, 4.0, engine=e).hit_rate.estimate or 0 for e in ("vllm", "none")}
    assert grown["none"] >= grown["vllm"] > rates["vllm"]
    with pytest.raises(InputError, match="slots"):
        forecast(trace, 1.0, engine="llamacpp")


def test_sglang_frees_unfinished_pages_so_that_two_blocks_of_room_keep_two_prompts() -> None:
    """Three prompts of 7 tokens in blocks of 4, the third like the first: 4 of 21 tokens hit if the
    pages of 3 tokens take no room, and none if they do."""
    first, second = [1, 2, 3, 4, 5, 6, 7], [8, 9, 8, 9, 8, 9, 8]
    requests = [
        TokenRequest(prompt, session=number, arrival_s=number)
        for number, prompt in enumerate([first, second, first])
    ]
    trace = token_trace(requests, 4)
    for engine, hits in (("sglang", 4), ("vllm", 0)):
        assert forecast(trace, 1.0, 2, engine=engine).hit_rate.estimate == hits / 21


def short_log() -> Trace:
    times = world().arrival_s
    assert times is not None
    return replace(world(), arrival_s=times / 10)


def one_giant() -> Trace:
    """The first session sends one request as large as all others together."""
    trace, extra = world(), world().num_blocks
    ids = np.concatenate([trace.num_ids + np.arange(extra), trace.block_ids[trace.block_ptr[1] :]])
    ptr = trace.block_ptr + (extra - trace.block_ptr[1])
    ptr[0] = 0
    tokens = trace.prompt_tokens.copy()
    tokens[0] = extra * trace.block_size
    return replace(trace, block_ids=ids, block_ptr=ptr, prompt_tokens=tokens)


@pytest.mark.parametrize(
    ("log", "asked", "reason"),
    [
        (lambda: sample_sessions(world(), 0.1, 0), {}, "sessions, fewer than 100"),
        (one_giant, {}, "a few sessions hold most of the blocks"),
        (short_log, {}, "at least 900 s are needed"),
        (world, {"capacity_blocks": 20}, "no server could serve this log"),
        (world, {"traffic": 101.0}, "beyond 100x"),
        (world, {"traffic": 0.01}, "4 of the log's sessions remain"),
        (world, {"horizon_s": 7200.0}, "cannot be extrapolated together"),
        (world, {"traffic": 1.0, "horizon_s": 36_001.0}, "more than 10 times the window"),
    ],
)
def test_refusals_name_what_is_missing(log: Any, asked: dict[str, Any], reason: str) -> None:
    answer = forecast(log(), **({"traffic": 5.0} | asked))
    assert answer.status == "inconclusive"
    assert answer.hit_rate.estimate is None
    assert reason in (answer.needs or "")


def test_turns_too_far_apart_for_the_window_are_refused() -> None:
    trace = world()
    times = trace.arrival_s
    assert times is not None
    firsts = np.unique(trace.session, return_index=True)[1]
    lasts = len(trace.session) - 1 - np.unique(trace.session[::-1], return_index=True)[1]
    kept = np.zeros(trace.num_requests, np.bool_)
    far = (times[lasts] - times[firsts]) > 900
    kept[firsts], kept[lasts[far]] = True, True
    answer = forecast(take_requests(trace, kept), 5.0)
    assert "such gaps are needed" in (answer.needs or "")


def test_forecasts_are_no_worse_informed_than_analysis_at_1x() -> None:
    point = analyze(world(), [3000]).curve[0]
    assert forecast(world(), 1.0, 3000).hit_rate.estimate == point.hit_rate
