"""A forecast of the log itself is counted; what the log cannot tell is refused without a number."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from loadkit.analysis import analyze
from loadkit.core.errors import InputError
from loadkit.core.trace import Trace
from loadkit.forecast import forecast
from loadkit.traces import TokenRequest, token_trace


def log(times: list[float] | None = None) -> Trace:
    """Blocks of 2, six prompts of 3 tokens: two new ones, then the first again and again."""
    prompts = [[1, 2, 3], [4, 5, 6], *([[1, 2, 3]] * 4)]
    return token_trace(
        [
            TokenRequest(prompt, session=row, arrival_s=times[row] if times else None)
            for row, prompt in enumerate(prompts)
        ],
        2,
    )


def test_the_json_has_the_keys_of_the_contract() -> None:
    data = json.loads(json.dumps(forecast(log(), 1, 4).to_dict(), allow_nan=False))
    assert set(data) >= {
        "schema",
        "scenario",
        "hit_rate",
        "split",
        "organic_hit_rate",
        "curve",
        "self_check",
        "baselines",
        "status",
        "needs",
    }
    assert data["schema"] == "loadkit.forecast/1"
    assert data["scenario"] == {
        "traffic": 1,
        "capacity_blocks": 4,
        "ttl_s": None,
        "replicas": 1,
        "routing": "pooled",
        "horizon_s": None,
        "block_size": 2,
        "engine": "vllm",
        "kept_blocks": [],
    }
    assert data["log"] == {
        "requests": 6,
        "sessions": 6,
        "block_size": 2,
        "tokenizer_fingerprint": None,
        "prompt_tokens": 18,
        "model": None,
        "duration_s": None,
        "replies": False,
    }


def test_the_log_itself_is_counted_exactly_and_has_no_interval() -> None:
    answer = forecast(log(), 1.0, None, tokenizer_fingerprint="f")
    assert answer.status == "ok"
    assert answer.needs is None
    rate = answer.hit_rate
    assert (rate.estimate, rate.low, rate.high) == (8 / 18, 8 / 18, 8 / 18)
    assert (rate.confidence, rate.method) == (None, "exact")
    assert answer.split.replay_cross_session == 8 / 18
    assert answer.split.miss == 10 / 18
    assert answer.organic_hit_rate.estimate == 0
    assert answer.log.tokenizer_fingerprint == "f"


def test_the_estimate_is_what_analyze_says_at_that_capacity() -> None:
    trace = log()
    for capacity in (1, 2, 3, 4, None):
        point = analyze(trace, [capacity]).curve[0]
        answer = forecast(trace, 1, capacity)
        assert answer.hit_rate.estimate == point.hit_rate
        assert answer.split.miss_capacity == point.miss_capacity
        assert answer.baselines.own_rate == point.hit_rate


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"traffic": 20}, "6 sessions, fewer than 100"),
        ({"traffic": 0.5}, "6 sessions, fewer than 100"),
        ({"traffic": 101}, "101x is beyond 100x"),
        ({"traffic": 20, "capacity_blocks": 4}, "no timestamps"),
        ({"traffic": 1, "replicas": 2, "routing": "sticky"}, "no timestamps"),
        ({"traffic": 1, "ttl_s": 60.0}, "no timestamps"),
        ({"traffic": 1, "horizon_s": 60.0}, "no timestamps"),
    ],
)
def test_what_the_log_cannot_tell_is_refused_without_a_number(
    asked: dict[str, Any], named: str
) -> None:
    answer = forecast(log(), **asked)
    assert answer.status == "inconclusive"
    assert answer.needs is not None
    assert named in answer.needs
    assert answer.hit_rate.estimate is None
    assert answer.organic_hit_rate.estimate is None
    assert set(answer.to_dict()["split"].values()) == {None}
    assert answer.curve == ()
    naive = None if "ttl_s" in asked else 8 / 18
    assert answer.baselines.own_rate == naive


def test_an_empty_log_is_inconclusive() -> None:
    answer = forecast(token_trace([], 2), 1)
    assert answer.status == "inconclusive"
    assert answer.baselines.last_third is None


def test_the_scaled_baseline_divides_the_capacity_by_the_traffic() -> None:
    trace = log()
    naive = forecast(trace, 2, 4).baselines
    assert naive.own_rate == analyze(trace, [4]).curve[0].hit_rate
    assert naive.scaled_capacity == analyze(trace, [2]).curve[0].hit_rate
    assert naive.own_rate != naive.scaled_capacity


def test_the_last_third_is_of_the_window_or_of_the_requests() -> None:
    # By count the last two of six requests; by time only the one in the last 20 of 60 seconds.
    assert forecast(log(), 1).baselines.last_third == 4 / 6
    assert forecast(log([0, 1, 2, 3, 39, 60]), 1).baselines.last_third == 2 / 3
    assert forecast(log([0, 41, 42, 43, 44, 60]), 1).baselines.last_third == 8 / 15


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        ({"traffic": 0}, "--traffic"),
        ({"traffic": math.nan}, "--traffic"),
        ({"traffic": 1, "replicas": 0}, "--replicas"),
        ({"traffic": 1, "routing": "magic"}, "--routing"),
        ({"traffic": 1, "capacity_blocks": 0}, "--capacity"),
        ({"traffic": math.inf}, "--traffic"),
        ({"traffic": 1, "ttl_s": 0}, "--ttl"),
        ({"traffic": 1, "ttl_s": math.inf}, "--ttl"),
        ({"traffic": 1, "horizon_s": math.nan}, "--horizon"),
        ({"traffic": 1, "confidence": 1.0}, "--confidence"),
        ({"traffic": 1, "target_points": 0}, "--target"),
    ],
)
def test_scenarios_without_sense_are_refused(asked: dict[str, Any], where: str) -> None:
    with pytest.raises(InputError, match=where):
        forecast(log(), **asked)
