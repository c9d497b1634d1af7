"""Sampling on logits that can be checked by eye."""

from __future__ import annotations

from collections import Counter
from math import exp, log
from typing import Any

import pytest
import torch
from engine_builders import expected_reply, make_engine, run_all

from reference_server.request import Chunk, Request, SamplingParams
from reference_server.sampling import Sampler

PROBABILITIES = [0.5, 0.25, 0.15, 0.1]


def chunk(**params: Any) -> Chunk:
    return Chunk(Request([1], 4, b"root", SamplingParams(max_tokens=9, **params)), 0, 1)


def logits(rows: int = 1) -> torch.Tensor:
    return torch.tensor([PROBABILITIES]).log().repeat(rows, 1) + 3.0


def drawn(num: int = 2000, **params: Any) -> Counter[int]:
    one = chunk(temperature=1.0, seed=1, **params)
    return Counter(Sampler().sample(logits(), [one])[0].token for _ in range(num))


def test_top_k_keeps_the_k_most_likely_in_proportion() -> None:
    counts = drawn(top_k=2)
    assert set(counts) == {0, 1}
    assert counts[0] / 2000 == pytest.approx(2 / 3, abs=0.04)


def test_top_k_of_nothing_or_of_all_changes_nothing() -> None:
    assert set(drawn(top_k=0)) == set(drawn(top_k=99)) == {0, 1, 2, 3}


def test_top_k_and_top_p_together() -> None:
    """Of the three most likely, in proportion .56 .28 .17, the first two reach .6."""
    assert set(drawn(top_k=3, top_p=0.6)) == {0, 1}


def test_logprobs_are_the_models_own_before_temperature() -> None:
    sample = Sampler().sample(logits(), [chunk(num_logprobs=2, temperature=0.0)])[0]
    assert sample.token == 0
    assert sample.logprob == pytest.approx(log(0.5), abs=1e-5)
    assert [token for token, _ in sample.top] == [0, 1]
    assert [exp(value) for _, value in sample.top] == pytest.approx([0.5, 0.25], abs=1e-5)


def test_logprobs_without_alternatives_and_none_at_all() -> None:
    wanted, unwanted = Sampler().sample(logits(2), [chunk(num_logprobs=0), chunk()])
    assert (wanted.logprob is None, wanted.top) == (False, ())
    assert (unwanted.logprob, unwanted.top) == (None, ())


def test_tokens_that_would_end_the_reply_too_early_are_banned() -> None:
    params = {"min_tokens": 1, "eos_ids": frozenset({0}), "stop_ids": frozenset({1})}
    assert Sampler().sample(logits(), [chunk(**params)])[0].token == 2
    ignoring = chunk(**params, ignore_eos=True)
    assert Sampler().sample(logits(), [ignoring])[0].token == 0


def test_logprobs_of_a_reply_with_banned_ends_are_still_the_models_own() -> None:
    banning = chunk(num_logprobs=1, min_tokens=1, eos_ids=frozenset({0}))
    given = logits()
    sample = Sampler().sample(given, [banning])[0]
    assert (sample.token, sample.top[0][0]) == (1, 0)
    assert sample.logprob == pytest.approx(log(0.25), abs=1e-5)
    assert torch.equal(given, logits())


@pytest.mark.parametrize(
    "params", [{"temperature": 1e-40}, {"temperature": 1e-320}, {"top_p": 1e-50}]
)
def test_the_least_temperature_and_top_p_are_greedy(params: dict[str, float]) -> None:
    """fp32 knows no such numbers: dividing by them, or keeping that share, left no token at all."""
    one = chunk(**{"temperature": 1.0, "seed": 1, **params})
    assert [s.token for s in Sampler().sample(logits(), [one])] == [0]


def test_each_row_of_a_batch_draws_as_it_would_alone() -> None:
    kinds: list[dict[str, Any]] = [
        {"temperature": 1.0},
        {"temperature": 0.0},
        {"temperature": 2.0, "top_k": 2},
        {"temperature": 0.7, "top_p": 0.8},
        {"temperature": 1.0, "top_k": 3, "top_p": 0.6},
    ]
    for seed in range(30):
        together = [chunk(seed=seed, **kind) for kind in kinds]
        alone = [chunk(seed=seed, **kind) for kind in kinds]
        tokens = [sample.token for sample in Sampler().sample(logits(len(kinds)), together)]
        assert tokens == [Sampler().sample(logits(), [one])[0].token for one in alone]


def test_a_stop_id_ends_a_reply_and_is_its_last_token() -> None:
    reply = expected_reply([1, 2], 20, 50)
    stop = reply[7]
    engine = make_engine(50, vocabulary=50)
    params = SamplingParams(max_tokens=20, stop_ids=frozenset({stop}), num_logprobs=0)
    request = Request([1, 2], 4, b"root", params)
    engine.submit(request)
    run_all(engine)
    assert request.output == reply[: reply.index(stop) + 1]
    assert request.finish_reason == "stop"
    assert [sample.token for sample in request.samples] == request.output
