"""What can be true of an answer and of a counter, by numbers that can be checked by eye."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from run_builders import answered, context, counters

from loadkit.analysis.reuse import reuse_of
from loadkit.core.trace import Trace
from loadkit.runs.context import CounterSample
from loadkit.runs.plausible import impossible_answers, judge_counters, possible_tokens
from loadkit.runs.prediction import Prediction
from loadkit.runs.record import Record

BLOCK = 4


def trace(chains: list[list[int]], tokens: list[int]) -> Trace:
    counts = [len(chain) for chain in chains]
    return Trace(
        block_size=BLOCK,
        prompt_tokens=np.array(tokens),
        block_ptr=np.concatenate([[0], np.cumsum(counts)]),
        block_ids=np.array([block for chain in chains for block in chain]),
        prompt_key=np.arange(len(chains)),
        session=np.arange(len(chains)),
        num_sessions=len(chains),
        sessions_inferred=False,
        output_tokens=np.full(len(chains), 1),
    )


def possible(spans: list[tuple[float, float]], chains: list[list[int]], tokens: list[int]) -> Any:
    records = [answered(f"s{n}", 0, sent, completed_s=done) for n, (sent, done) in enumerate(spans)]
    return possible_tokens(reuse_of(trace(chains, tokens)), records).tolist()


def test_only_what_another_request_brought_before_the_end_can_be_found() -> None:
    """Three prompts that share blocks 0 and 1, one after another."""
    chains = [[0, 1, 2], [0, 1, 3], [0, 4]]
    spans = [(0.0, 1.0), (2.0, 3.0), (4.0, 5.0)]
    assert possible(spans, chains, [13, 13, 9]) == [0, 8, 4]


def test_of_requests_under_way_together_either_may_have_come_first() -> None:
    chains = [[0, 1, 2], [0, 1, 3]]
    assert possible([(0.0, 5.0), (2.0, 3.0)], chains, [13, 13]) == [8, 8]
    assert possible([(0.0, 1.0), (2.0, 3.0)], chains, [13, 13]) == [0, 8]


def test_the_last_token_is_computed_and_a_gap_ends_the_prefix() -> None:
    chains = [[0, 1], [0, 1], [5, 1]]
    spans = [(0.0, 1.0), (2.0, 3.0), (4.0, 5.0)]
    assert possible(spans, chains, [8, 8, 8]) == [0, 4, 0]


def test_a_request_that_was_sent_twice_may_find_itself() -> None:
    record = answered("a", 0, 0.0, attempts=2)
    found = possible_tokens(reuse_of(trace([[0, 1]], [9])), [record])
    assert found.tolist() == [8]


def judged(cached: list[int | None], limits: list[int], *, size: int | None = BLOCK) -> Any:
    records = [answered("a", n, n, cached_tokens=tokens) for n, tokens in enumerate(cached)]
    prediction = Prediction(
        prompt_tokens=np.full(len(cached), 100),
        replay=(None,) * len(cached),
        own_prefix_tokens=np.array(limits),
        reusable_tokens=np.array(limits),
        resident_tokens=None,
        possible_tokens=np.array(limits),
    )
    return impossible_answers(records, prediction, size)


def test_answers_beyond_the_bound_are_counted_with_the_first_three() -> None:
    found = judged([0, 8, 12, 16, 20], [0, 8, 8, 8, 8])
    assert (found.judged, found.beyond, found.excess_tokens) == (5, 3, 4 + 8 + 12)
    assert [one.turn for one in found.first] == [2, 3, 4]
    assert found.first[0].why == "12 cached, at most 8 could have been there"


def test_less_than_a_block_beyond_the_bound_says_that_the_blocks_are_others() -> None:
    found = judged([11, 9, None], [8, 8, 8])
    assert (found.beyond, found.off_grid, found.judged) == (0, 2, 2)
    assert judged([11, 9, None], [8, 8, 8], size=None).beyond == 2, (
        "token by token they are too many"
    )
    assert judged([7], [8], size=1).count == 0


@pytest.mark.parametrize(
    "fields", [{"cached_tokens": 101}, {"cached_tokens": None, "usage_doubt": "text"}]
)
def test_what_is_no_count_is_impossible_without_any_prediction(fields: dict[str, Any]) -> None:
    found = impossible_answers([answered("a", 0, 0.0, **fields)], None, BLOCK)
    assert (found.judged, found.unreadable) == (0, 1)


# Two answers of 100 prompt tokens, at 0 to 0.3 s and at 100 to 100.3 s; 64 cached of the second.
RUN = [answered("a", 0, 0.0), answered("a", 1, 100.0, cached_tokens=64)]


def doubts(
    *readings: tuple[float, float, float], records: list[Record] = RUN, **fields: Any
) -> Any:
    """Readings are (seconds, look-ups, hits); the last one is after the run."""
    *during, (_, queries, hits) = readings
    known = context(
        counters_before=counters(0, 0),
        counter_samples=[CounterSample(at, at, counters(h, q)) for at, q, h in during],
        counters_after=counters(hits, queries),
        **fields,
    )
    return judge_counters(records, [r.prompt_tokens for r in records], known)


def test_counters_that_follow_the_run_are_not_doubted() -> None:
    found = doubts((50.0, 100, 0), (99.0, 100, 0), (200.0, 200, 64))
    figures = (found.queries_short, found.queries_over, found.hits_short, found.hits_over)
    assert (figures, found.restarted, found.silent) == ((0, 0, 0, 0), False, False)


@pytest.mark.parametrize(
    ("readings", "short", "over"),
    [
        ([(50.0, 100, 0), (200.0, 100, 0)], 100, 0),  # stopped
        ([(50.0, 0, 0), (200.0, 200, 64)], 100, 0),  # late, but right in the end
        ([(50.0, 150, 0), (200.0, 250, 64)], 0, 50),  # somebody else
        ([(50.0, 150, 0), (200.0, 200, 64)], 0, 50),  # somebody else, and as much left out
    ],
)
def test_a_reading_is_between_what_was_answered_and_what_was_sent(
    readings: list[tuple[float, float, float]], short: int, over: int
) -> None:
    found = doubts(*readings)
    assert (found.queries_short, found.queries_over) == (short, over)


def test_hits_that_are_counted_where_no_answer_reports_them_are_seen_in_mid_run() -> None:
    assert doubts((50.0, 100, 48), (200.0, 200, 64)).hits_over == 48
    other = [answered("a", 0, 0.0, cached_tokens=64), answered("a", 1, 100.0)]
    assert doubts((50.0, 100, 0), (200.0, 200, 64), records=other).hits_short == 64


def test_counters_that_fall_were_started_again_even_if_they_end_higher() -> None:
    assert doubts((50.0, 100, 0), (60.0, 10, 0), (200.0, 200, 64)).restarted
    assert doubts((50.0, 100, 0), (200.0, 200, 64)).restarted is False


def test_requests_without_an_answer_may_or_may_not_have_been_counted() -> None:
    cut = answered("b", 0, 40.0, outcome="cut", prompt_tokens=None, cached_tokens=None)
    assert doubts((50.0, 100, 0), (200.0, 200, 64), records=[*RUN, cut]).queries_over == 0
    assert doubts((50.0, 120, 0), (200.0, 220, 64), records=[*RUN, cut]).queries_over == 0
    length = len(cut.prompt_key)
    assert doubts((200.0, 210 + length, 64), records=[*RUN, cut]).queries_over == 10


def test_look_ups_that_are_repeated_for_one_request_are_not_other_traffic() -> None:
    """vLLM before mid 2026 looks a waiting request up again; requests themselves it counts once."""
    import msgspec

    before = msgspec.structs.replace(counters(0, 0), prompts=0.0)
    after = msgspec.structs.replace(counters(128, 400), prompts=200.0)
    known = context(counters_before=before, counters_after=after)
    assert judge_counters(RUN, [100, 100], known).queries_over == 0


def test_hits_of_answers_without_usage_are_bounded_by_what_was_predicted() -> None:
    """64 tokens were to hit at 0 s; at 50 s the counters show none of them, at the end all."""
    silent = [answered("a", n, at, cached_tokens=None) for n, at in enumerate((0.0, 100.0))]
    during = CounterSample(50.0, 50.0, counters(0, 100))
    known = context(
        counters_before=counters(0, 0), counter_samples=[during], counters_after=counters(64, 200)
    )
    assert judge_counters(silent, [100, 100], known).hits_short is None
    assert judge_counters(silent, [100, 100], known, {0: (64, 64), 1: (0, 0)}).hits_short == 64
    assert judge_counters(silent, [100, 100], known, {0: (0, 64), 1: (0, 0)}).hits_short == 0


def test_a_reading_that_is_no_number_is_none() -> None:
    found = doubts((50.0, float("nan"), float("nan")), (200.0, 200, 64))
    assert (found.readings, found.queries_short, found.restarted) == (1, 0, False)
    assert doubts((200.0, float("nan"), 64)).readings == 0
