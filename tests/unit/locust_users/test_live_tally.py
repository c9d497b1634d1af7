"""Counts of several load workers add up to the counts of one."""

from __future__ import annotations

import json
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_records import finished

from loadkit.locust_users.live import Live
from loadkit.locust_users.live_tally import MAX_BUCKETS, Series

COUNTS = [1, 2, 3, 4, 5, 6, 7, 8]


def stream(seed: int, number: int) -> list:
    """Requests of a three-hour run with every outcome and cause, in no order of time."""
    rng = random.Random(seed)
    records = []
    for index in range(number):
        sent = rng.uniform(0, 10_800)
        parts = [rng.randrange(40) for _ in range(4)]
        names = ("replay_same_session", "replay_cross_session", "continuation", "shared")
        records.append(
            finished(
                f"prompt {index}",
                session=f"s{index}",
                outcome=rng.choice(["ok", "ok", "ok", "cut", "http_error"]),
                intended_s=sent - rng.random() / 50,
                sent_s=sent,
                first_token_s=rng.choice([None, sent + rng.lognormvariate(-2, 1)]),
                completed_s=sent + 2,
                prompt_tokens=200,
                cached_tokens=rng.choice([None, sum(parts)]),
                server_split=rng.choice([None, dict(zip(names, parts, strict=True))]),
            )
        )
    return records


def test_three_workers_that_report_now_and_then_add_up_to_one():
    workers, master, alone = [Live(), Live(), Live()], Live(), Live()
    rng = random.Random(7)
    for record in stream(seed=1, number=600):
        worker = rng.choice(workers)
        worker.observe(record)
        alone.observe(record)
        if rng.random() < 0.1:
            master.merge(json.loads(json.dumps(worker.take())))
    for worker in workers:
        master.merge(worker.take())
    assert master.snapshot() == alone.snapshot()
    assert alone.snapshot()["requests"] == 600
    assert alone.snapshot()["series"]["width_s"] == 32, "10,802 s in at most 600 buckets"


def test_what_was_taken_is_not_reported_twice():
    worker, master = Live(), Live()
    worker.observe(finished(cached_tokens=40))
    for _ in range(3):
        master.merge(worker.take())
    assert master.snapshot()["requests"] == 1
    assert worker.snapshot()["requests"] == 0


def test_something_else_than_a_workers_counts_is_refused():
    with pytest.raises(msgspec.ValidationError):
        Live().merge({"width_s": "wide"})


def test_a_time_beyond_the_last_bucket_doubles_the_width_and_keeps_the_sums():
    series = Series()
    series.add(0, COUNTS)
    series.add(1, COUNTS)
    series.add(MAX_BUCKETS - 1, COUNTS)
    assert (series.width_s, len(series.buckets)) == (1, 3)
    series.add(MAX_BUCKETS, COUNTS)
    assert series.width_s == 2
    assert series.rows() == [
        [0, *(2 * n for n in COUNTS)],
        [299, *COUNTS],
        [300, *COUNTS],
    ]


def test_a_negative_time_counts_at_the_start():
    series = Series()
    series.add(-0.4, COUNTS)
    series.add(-3.0, COUNTS)
    assert series.rows() == [[0, *(2 * n for n in COUNTS)]]


@given(
    st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 2)), max_size=60),
)
def test_series_add_up_in_any_partition_and_stay_bounded(events):
    alone, parts, merged = Series(), [Series(), Series(), Series()], Series()
    for at_s, part in events:
        alone.add(at_s, COUNTS)
        parts[part].add(at_s, COUNTS)
    for part in parts:
        merged.merge(part.width_s, part.rows())
    assert (merged.width_s, merged.rows()) == (alone.width_s, alone.rows())
    assert alone.total()["requests"] == COUNTS[-1] * len(events)
    assert all(index < MAX_BUCKETS for index in alone.buckets)
