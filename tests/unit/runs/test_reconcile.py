"""Usage, Prometheus and prediction: agreement, named gaps, and what nobody can tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from run_builders import answered, context, counters

from loadkit.client.prometheus import PrefixCounters
from loadkit.runs.prediction import Prediction, Predictions
from loadkit.runs.reconcile import prometheus_witness, reconcile
from loadkit.runs.record import Record
from loadkit.runs.splits import split_requests
from loadkit.runs.view import Gathered, View, measured_view

SENT = [answered("a", 0, 0.0, cached_tokens=0), answered("a", 1, 1.0, cached_tokens=64)]


def predicted(tokens: list[int], resident: list[int] | None = None) -> Prediction:
    return Prediction(
        prompt_tokens=np.full(len(tokens), 100),
        replay=(None,) * len(tokens),
        own_prefix_tokens=np.array(tokens),
        reusable_tokens=np.array(tokens),
        resident_tokens=None if resident is None else np.array(resident),
    )


def compare(
    records: list[Record] = SENT,
    hits: float = 64,
    queries: float = 200,
    best: list[int] | None = None,
    from_text: list[int] | None = None,
) -> dict[str, Any]:
    known = context(
        counters_before=counters(10, 30), counters_after=counters(10 + hits, 30 + queries)
    )
    text = None if from_text is None else predicted(from_text)
    more = [0] * (sum(record.outcome == "ok" for record in records) - 2)
    predictions = Predictions(predicted((best or [0, 64]) + more), text)
    return reconcile(whole(records, predictions), known)


def whole(records: list[Record], predictions: Predictions | None) -> View:
    """A run of one phase."""
    gathered = Gathered(records, 0, 0)
    answered = [r for r in records if r.outcome == "ok"]
    return measured_view(gathered, answered, split_requests(answered, None), predictions)


def test_three_equal_witnesses_agree() -> None:
    result = compare()
    assert result["agrees"] is True
    for witness in ("usage", "prometheus", "prediction"):
        assert result[witness] == {"cached_tokens": 64, "prompt_tokens": 200}


@pytest.mark.parametrize("change", [{"hits": 63}, {"queries": 201}, {"best": [0, 80]}])
def test_a_single_token_of_difference_is_disagreement(change: dict[str, Any]) -> None:
    assert compare(**change)["agrees"] is False


def test_the_gap_has_a_sign_and_a_size() -> None:
    result = compare(best=[0, 80], hits=60)
    assert result["usage_vs_prediction"]["unexplained_cached_tokens"] == -16
    assert result["usage_vs_prometheus"]["unexplained_cached_tokens"] == 4


def test_retokenised_replies_are_named_and_do_not_count_as_unexplained() -> None:
    result = compare(best=[0, 64], from_text=[0, 96])
    assert result["retokenised_tokens"] == 32
    assert result["prediction_from_text_tokens"] == 96
    assert result["agrees"] is True


def test_without_generated_ids_retokenised_tokens_are_not_known() -> None:
    assert compare()["retokenised_tokens"] is None


def test_the_prediction_at_the_servers_capacity_is_the_one_that_counts() -> None:
    small = Predictions(predicted([0, 80], resident=[0, 64]), None)
    result = reconcile(whole(SENT, small), context(capacity_blocks=8))
    assert result["prediction"]["cached_tokens"] == 64
    assert result["prediction_infinite_tokens"] == 80
    assert result["prediction_capacity_blocks"] == 8


def test_a_missing_witness_leaves_agreement_open() -> None:
    result = reconcile(whole(SENT, None), context())
    assert result["agrees"] is None
    assert result["usage"]["cached_tokens"] == 64
    assert result["prometheus"]["cached_tokens"] is None
    assert result["prediction"]["cached_tokens"] is None


@pytest.mark.parametrize(("started_again", "hits"), [(False, 64), (True, None)])
def test_counters_that_grew_past_their_old_values_after_a_restart_are_no_witness(
    started_again: bool, hits: int | None
) -> None:
    before, after = (
        PrefixCounters("vllm", queries, hits, started_unix_s=at)
        for queries, hits, at in ((100, 0, 1.0), (300, 64, 2.0 if started_again else 1.0))
    )
    assert prometheus_witness(before, after).cached_tokens == hits


def test_a_server_started_again_during_the_run_is_no_witness() -> None:
    restarted = context(counters_before=counters(500, 900), counters_after=counters(64, 200))
    assert reconcile(whole(SENT, None), restarted)["prometheus"]["cached_tokens"] is None


def test_a_cut_stream_that_the_server_counted_leaves_agreement_open() -> None:
    cut = answered("b", 0, 2.0, outcome="cut", cached_tokens=None, prompt_tokens=None)
    result = compare([*SENT, cut], hits=64, queries=300)
    assert result["unanswered_requests"] == 1
    assert result["usage_vs_prometheus"]["agrees"] is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"outcome": "http_error", "status": 400}, 0),
        ({"outcome": "http_error", "status": 500}, 1),
        ({"outcome": "timeout"}, 1),
        ({"outcome": "not_sent", "sent_s": None}, 0),
        ({"outcome": "cancelled", "sent_s": None}, 0),
        ({"outcome": "ok", "cached_tokens": None}, 1),
        ({"outcome": "ok", "resent": True}, 1),
    ],
)
def test_only_requests_that_may_have_been_counted_are_unanswered(
    fields: dict[str, Any], expected: int
) -> None:
    assert compare([*SENT, answered("b", 0, 2.0, **fields)])["unanswered_requests"] == expected
