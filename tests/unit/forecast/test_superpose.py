"""Superposed traces: exact at 1x, and consistent with themselves at any traffic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from worlds import make_world

from loadkit.analysis.nodes import NodeStream, node_stream
from loadkit.analysis.weighted import weighted_hits
from loadkit.core.trace import Trace
from loadkit.forecast.copies import CopyPlan, copy_chains
from loadkit.forecast.sample import Sample, sample_of
from loadkit.forecast.superpose import Production, superpose, template_of
from loadkit.traces import TokenRequest, token_trace


def small_sample(name: str = "burst") -> Sample:
    return sample_of(node_stream(make_world(name, 5, 0.06)))


def grown(sample: Sample, traffic: float, **kind: Any) -> Production:
    return superpose(template_of(sample), traffic, np.random.default_rng(0), **kind)


def chats(num: int) -> Trace:
    """Sessions of two turns with replies that share nothing but a system prompt of 4 tokens."""
    requests = []
    for row in range(num):
        first = [1, 2, 3, 4, *[100 * row + 10 + k for k in range(6)]]
        reply = [100 * row + 30 + k for k in range(3)]
        turns = [(first, reply, 0.0), ([*first, *reply, 100 * row + 50], [7], 20.0)]
        for prompt, answer, offset in turns:
            arrival = 10.0 * row + offset
            requests.append(
                TokenRequest(prompt, answer, session=row, arrival_s=arrival, latency_s=1)
            )
    return token_trace(requests, 2)


@pytest.mark.parametrize("trace", [make_world("agents", 3, 0.05), chats(30)], ids=["ids", "text"])
def test_at_1x_the_trace_is_the_sample(trace: Trace) -> None:
    stream = node_stream(trace)
    copy = grown(sample_of(stream), 1.0)
    assert copy.distinct_blocks == stream.distinct_blocks
    sizes = [1, 5, 40, 300, 2000, None]
    before, after = weighted_hits(stream, sizes), weighted_hits(copy.stream, sizes)
    assert [after.split(i) for i in range(6)] == [before.split(i) for i in range(6)]


@pytest.mark.parametrize("traffic", [2.0, 3.5, 0.5])
def test_requests_and_tokens_grow_with_traffic(traffic: float) -> None:
    sample = small_sample()
    copy = grown(sample, traffic).stream
    rows = np.bincount(sample.stream.requests.session)
    assert copy.num_requests == pytest.approx(traffic * rows.sum(), rel=0.1)
    sessions = len(np.unique(copy.requests.session))
    assert sessions == pytest.approx(traffic * sample.num_sessions, abs=1)
    times = copy.event_time_s
    assert times is not None
    assert (np.diff(times) >= 0).all()
    assert 0 <= times[0] <= times[-1] <= sample.window_s


def chains(stream: NodeStream) -> list[list[int]]:
    bounds = zip(stream.event_ptr[:-1], stream.event_ptr[1:], strict=True)
    return [stream.nodes[start:end].tolist() for start, end in bounds]


def test_facts_taken_from_the_template_are_those_of_the_synthetic_trace() -> None:
    stream = grown(small_sample(), 4.0).stream
    facts, seen_by_session, sent = stream.requests, {}, {}
    for chain, row in zip(chains(stream), stream.event_request, strict=True):
        who, key = int(facts.session[row]), int(facts.prompt_key[row])
        mine = seen_by_session.setdefault(who, set())
        own = sum(int(stream.weight[node]) for node in chain if node in mine)
        assert facts.own_blocks[row] == own
        senders = sent.setdefault(key, [])
        expected = 0 if not senders else 1 if who in senders else 2
        assert facts.replay[row] == expected
        senders.append(who)
        mine.update(chain)


def test_ids_of_the_synthetic_trace_are_prefix_chains_with_one_parent_each() -> None:
    parents: dict[int, int] = {}
    for chain in chains(grown(small_sample(), 4.0).stream):
        for parent, node in zip([-1, *chain], chain, strict=False):
            assert parents.setdefault(node, parent) == parent


def test_what_is_private_by_assumption_is_never_shared_by_copies() -> None:
    # Chats share two blocks; with everything else private only these are hit by other sessions.
    stream = grown(sample_of(node_stream(chats(40))), 5.0, alone="private").stream
    split = weighted_hits(stream, [None]).split(0)
    assert split.replay == 0
    assert split.shared <= 4 * stream.num_requests
    assert (
        split.continuation
        == 5 * weighted_hits(node_stream(chats(40)), [None]).split(0).continuation
    )


def test_a_copy_leaves_where_its_number_is_below_the_leaving_probability() -> None:
    # One session of three nodes with phi 0, .5, .9; copy 1 has u = .7, copy 2 follows copy 1 with .95.
    plan = CopyPlan(
        stay=np.array([[0.0, 0.7, 0.95]]),
        parent=np.array([[0, 0, 1]]),
        phi=np.array([0.0, 0.5, 0.9]),
        prompt_phi=np.array([0.96]),
    )
    chain = (np.array([0, 3]), np.array([0, 1, 2]), np.array([0, 1, 2]))
    events = (np.zeros(3, np.int64), np.arange(3), np.zeros(3, np.int64))
    ptr, ids, owner = copy_chains(plan, chain, events, np.array([0]), (3, 3))
    assert ptr.tolist() == [0, 3, 6, 9]
    # Copy 1 leaves at the third node (.7 < .9): id 3 + 0 * 3 + 2; copy 2 has there what copy 1 has.
    assert ids.tolist() == [0, 1, 2, 0, 1, 5, 0, 1, 5]
    # Nobody follows to the end of the prompt: each has a prompt of its own.
    assert owner.tolist() == [0, 1, 2]


def test_the_same_seed_gives_the_same_trace() -> None:
    first, again = grown(small_sample(), 3.0).stream, grown(small_sample(), 3.0).stream
    assert np.array_equal(first.nodes, again.nodes)
