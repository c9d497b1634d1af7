"""The reference pool in event time against the server's scheduler with overlapping requests.

The scheduler runs without a model: replies are made up. Its steps are the clock: a request arrives
between two steps, a token is there at the end of one. With prompts computed in one step that is all
there is to know, and the pool must find every request's hit tokens, waiters, full caches and
preempted requests included. Prompts computed in chunks add what no client sees.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest

from loadkit.analysis.reuse import reuse_of
from loadkit.analysis.simulate.pools import Chains, Served, Times, serve
from loadkit.analysis.simulate.reference_pool import ReferencePool
from loadkit.core.blocks import root_hash
from loadkit.core.trace import Trace
from loadkit.traces import TokenRequest, token_trace
from reference_server.block_tree import BlockTree
from reference_server.request import Request, Sample, SamplingParams
from reference_server.scheduler import Scheduler

MAX_SEQS = 8
WHOLE = 10_000  # tokens a step: every prompt at once


@dataclass
class Run:
    """What was sent and when, in steps; what the server did with it."""

    sent: list[tuple[list[int], list[int]]]
    block_size: int
    capacity: int
    arrival: list[float] = field(default_factory=list)
    tokens: list[list[float]] = field(default_factory=list)
    hits: list[int] = field(default_factory=list)
    preemptions: int = 0

    def trace(self) -> Trace:
        rows = (
            TokenRequest(
                prompt,
                reply=reply[:-1],
                num_output_tokens=len(reply),
                session=row,
                arrival_s=self.arrival[row],
                latency_s=self.tokens[row][-1] - self.arrival[row],
            )
            for row, (prompt, reply) in enumerate(self.sent)
        )
        return token_trace(rows, self.block_size)


def conversations(rng: random.Random, num: int) -> list[tuple[list[int], list[int]]]:
    """(prompt, sampled reply) over three token values; most go on from an earlier one."""
    sent: list[tuple[list[int], list[int]]] = []
    for _ in range(num):
        start: list[int] = []
        if sent and rng.random() < 0.7:
            prompt, reply = rng.choice(sent[-12:])
            start = (prompt + reply)[: rng.randint(0, 30)]
        more = [rng.randint(0, 2) for _ in range(rng.randint(0 if start else 1, 8))]
        sent.append((start + more, [rng.randint(0, 2) for _ in range(rng.randint(1, 8))]))
    return sent


def drive(seed: int, users: int, chunk: int = WHOLE, num: int = 40) -> Run:
    """Up to `users` requests at a time, in a cache that holds the largest one, or a few of them."""
    rng = random.Random(seed)
    size, sent = rng.randint(1, 4), conversations(rng, num)
    least = max(-(-(len(prompt) + len(reply) - 1) // size) for prompt, reply in sent)
    run = Run(sent, size, least + rng.randint(0, 3 * least))
    run.tokens = [[] for _ in sent]
    scheduler = Scheduler(
        BlockTree(run.capacity, MAX_SEQS), size, max_batch_tokens=chunk, max_num_seqs=MAX_SEQS
    )
    live: dict[int, Request] = {}
    requests: list[Request] = []
    step = 0
    while len(requests) < num or live:
        while len(requests) < num and len(live) < users and (not live or rng.random() < 0.6):
            prompt, reply = sent[len(requests)]
            params = SamplingParams(max_tokens=len(reply))
            live[len(requests)] = Request(list(prompt), size, root_hash(), params)
            scheduler.add(live[len(requests)])
            requests.append(live[len(requests)])
            run.arrival.append(step + 0.5)  # a tie would be read as overlap
        step += 1
        chunks = scheduler.plan()
        rows = [requests.index(chunk.request) for chunk in chunks]
        said = [
            [Sample(sent[row][1][chunk.request.num_output])] if chunk.samples else []
            for row, chunk in zip(rows, chunks, strict=True)
        ]
        scheduler.apply(chunks, said)
        for row, samples in zip(rows, said, strict=True):
            run.tokens[row] += [float(step)] * len(samples)
        live = {row: request for row, request in live.items() if request.finish_reason is None}
    run.hits = [request.split.hit for request in requests]  # type: ignore[union-attr]
    run.preemptions = sum(request.num_preemptions for request in requests)
    return run


def predicted(run: Run) -> Served:
    reuse = reuse_of(run.trace())
    chains = Chains(reuse)
    first, last = ([tokens[at] for tokens in run.tokens] for at in (0, -1))
    arrays = [np.array(each, np.float64) for each in (run.arrival, first, last)]
    times = Times(arrays[0], arrays[1], arrays[2], observed=True, token_s=run.tokens)
    return serve(ReferencePool(chains, run.capacity), chains, times)


@pytest.mark.parametrize("users", [1, 2, 4, 8])
def test_hits_agree_to_the_token_with_so_many_users(users: int) -> None:
    by_arrival = preemptions = 0
    for seed in range(25):
        run = drive(100 * users + seed, users)
        served = predicted(run)
        assert (served.hit_blocks * run.block_size).tolist() == run.hits
        assert served.num_preemptions == run.preemptions
        placed_on_arrival = reuse_of(run.trace()).hit_blocks(run.capacity) * run.block_size
        by_arrival += int(np.abs(placed_on_arrival - np.array(run.hits)).sum())
        preemptions += run.preemptions
    assert (by_arrival > 100) == (users > 1), "what it is for"
    assert (preemptions > 10) == (users > 2), "what it is for"


def test_prompts_in_chunks_leave_totals_within_a_few_percent() -> None:
    """Blocks of a prompt are there before its first token, which no client sees."""
    server = pool = 0
    for seed in range(40):
        run = drive(seed, 1 + seed % 8, chunk=12)
        server += sum(run.hits)
        pool += int(predicted(run).hit_blocks.sum()) * run.block_size
    assert abs(pool - server) < 0.01 * server
