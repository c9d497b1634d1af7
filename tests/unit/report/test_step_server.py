"""The step server against steps counted by hand, and against one that takes every step singly."""

from __future__ import annotations

import numpy as np
import pytest

from loadkit.core.trace import FloatArray
from loadkit.report.step_server import BUDGET_TOKENS, Traffic, replayed


def traffic(
    *rows: tuple[float, float, float], after: dict[int, tuple[int, float]] | None = None
) -> Traffic:
    """rows: (sent, uncached, output) of a request; after: request -> (predecessor, think time)."""
    sent, uncached, output = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    before, think = np.full(len(rows), -1), np.zeros(len(rows))
    for request, (predecessor, seconds) in (after or {}).items():
        before[request], think[request] = predecessor, seconds
    return Traffic(sent, uncached, output, before, think)


def test_on_an_idle_server_ttft_is_a_line_in_the_uncached_tokens() -> None:
    found = replayed(traffic((0, 10, 1), (100, 20, 1)), 1.0, 0.5, as_sent=True)
    assert found.tolist() == [1 + 5, 1 + 10]


def test_what_waits_together_is_computed_in_one_step_and_what_comes_late_waits_for_its_end() -> (
    None
):
    # step 1: 0 to 6 (10 tokens); step 2: 6 to 6 + 1 + .5 * 30 = 22 takes both that came meanwhile
    found = replayed(traffic((0, 10, 1), (2, 10, 1), (5, 20, 1)), 1.0, 0.5, as_sent=True)
    assert found.tolist() == [6, 22 - 2, 22 - 5]


def test_answers_under_way_cost_a_token_a_step_and_hold_a_new_request_up() -> None:
    # first token at 6; decode steps of 1 + .5 end at 7.5 and 9: at 7 one is on its way, so the new
    # request's step runs from 7.5, with one decoded token: 1 + .5 * (10 + 1) = 6.5
    found = replayed(traffic((0, 10, 3), (7, 10, 1)), 1.0, 0.5, as_sent=True)
    assert found.tolist() == [6, 7.5 + 6.5 - 7]


def test_more_than_the_budget_takes_more_steps() -> None:
    tokens = BUDGET_TOKENS + 100
    found = replayed(traffic((0, tokens, 1), (0, 10, 1)), 1.0, 0.0, as_sent=True)
    assert found.tolist() == [2, 2]


def test_who_waited_for_an_answer_waits_for_it_here() -> None:
    # answered at 6 + 1.5 (2 tokens); 10 s later: sent at 17.5 to an idle server
    made = traffic((0, 10, 2), (99, 20, 1), after={1: (0, 10.0)})
    assert replayed(made, 1.0, 0.5, as_sent=False).tolist() == [6, 11]
    assert replayed(made._replace(uncached=np.array([30.0, 20])), 1.0, 0.5, as_sent=False)[0] == 16


def one_by_one(made: Traffic, step_s: float, token_s: float) -> FloatArray:
    """Every step singly, with lists."""
    count = len(made.sent_s)
    sent = [float(made.sent_s[n]) if made.after[n] < 0 else np.inf for n in range(count)]
    left, owed, first = list(made.uncached), list(made.output), [np.nan] * count
    now, queue, answering, done = 0.0, [], [], 0
    while done < count:
        known = sorted((sent[n], n) for n in range(count) if np.isnan(first[n]) and n not in queue)
        if not queue and not answering:
            now = max(now, known[0][0])
        queue += [n for at, n in known if at <= now]
        budget, batch = BUDGET_TOKENS, []
        for n in list(queue):
            taken = min(left[n], budget)
            left[n], budget = left[n] - taken, budget - taken
            if left[n] > 0 or (taken == 0 and budget == 0):
                break
            batch.append(n)
        now += step_s + token_s * (BUDGET_TOKENS - budget + len(answering))
        for n in batch:
            first[n] = now
            queue.remove(n)
        answering += batch
        for n in list(answering):
            owed[n] -= 1
            if owed[n] == 0:
                done += 1
                answering.remove(n)
                for other in np.flatnonzero(made.after == n):
                    sent[other] = now + made.think_s[other]
    return np.array(first) - sent


@pytest.mark.parametrize("seed", range(12))
def test_steps_taken_together_give_what_single_steps_give(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = 60
    after = np.array(
        [-1 if n < 4 or rng.random() < 0.3 else int(rng.integers(n)) for n in range(count)]
    )
    made = Traffic(
        np.sort(rng.uniform(0, 40, count)),
        rng.choice([1.0, 16.0, 300.0, 1500.0, 5000.0], count),
        rng.integers(1, 30, count).astype(float),
        after,
        rng.exponential(0.3, count),
    )
    found = replayed(made, 0.05, 0.0011, as_sent=False)
    np.testing.assert_allclose(found, one_by_one(made, 0.05, 0.0011), rtol=1e-9, atol=1e-9)
