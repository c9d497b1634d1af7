"""What a run's client sees of the reference server, and how far its pool can be told from that.

The server is its scheduler without a model, in virtual time: a step takes 4 ms and 40 us a token.
Users talk in turn to it; a request reaches it up to 3.5 ms after it was sent, and each token is seen
up to 2 ms after the step that made it. Conversations of 6 system prompts share a cache of 39 blocks.
Nothing here is known to the prediction but the times that the client noted.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest

from loadkit.analysis.reuse import Reuse, reuse_of
from loadkit.analysis.simulate.reference_pool import ReferencePool
from loadkit.core.blocks import root_hash
from loadkit.runs.record import Record
from loadkit.runs.serving import pool_hits
from loadkit.traces import TokenRequest, token_trace
from reference_server.block_tree import BlockTree
from reference_server.request import Request, Sample, SamplingParams
from reference_server.scheduler import Scheduler

BLOCK_SIZE, CAPACITY = 32, 39
Tokens = list[int]


@dataclass
class User:
    next_s: float | None
    history: Tokens = field(default_factory=list)
    turns_left: int = 0


@dataclass(eq=False)
class Sent:
    user: User
    prompt: Tokens
    reply: Tokens
    sent_s: float
    reaches_s: float
    request: Request
    seen_s: list[float] = field(default_factory=list)

    @property
    def record(self) -> Record:
        return Record(
            session="s", turn=0, name="chat", worker=0, outcome="ok",
            intended_s=self.sent_s, sent_s=self.sent_s,
            first_token_s=self.seen_s[0], last_token_s=self.seen_s[-1],
            completed_s=self.seen_s[-1], gaps_s=np.diff(self.seen_s).tolist(),
            prompt_tokens=len(self.prompt), output_tokens=len(self.reply),
        )  # fmt: skip


class Run:
    """`num` requests of `users` in a closed loop."""

    def __init__(self, seed: int, users: int, num: int):
        self.rng, self.num = random.Random(seed), num
        self.systems = [self.tokens(110) for _ in range(6)]
        self.users = [User(self.rng.random() * 0.05) for _ in range(users)]
        self.scheduler = Scheduler(
            BlockTree(CAPACITY, 16), BLOCK_SIZE, max_batch_tokens=512, max_num_seqs=16
        )
        self.sent: list[Sent] = []
        self.under_way: list[Sent] = []
        self.now = 0.0
        while self.step():
            pass
        self.sent.sort(key=lambda each: each.sent_s)

    def tokens(self, num: int) -> Tokens:
        return [self.rng.randrange(999) for _ in range(num)]

    def step(self) -> bool:
        for user in self.users:
            if user.next_s is not None and user.next_s <= self.now and len(self.sent) < self.num:
                self.send(user, user.next_s)
        for each in sorted(self.under_way, key=lambda each: each.reaches_s):
            if each.reaches_s <= self.now:
                self.scheduler.add(each.request)
                self.under_way.remove(each)
        chunks = self.scheduler.plan()
        if not chunks:
            return self.wait()
        self.now += 0.004 + 0.00004 * sum(chunk.end - chunk.start for chunk in chunks)
        of = {id(each.request): each for each in self.sent}
        asked = [of[id(chunk.request)] for chunk in chunks]
        said = [
            [Sample(each.reply[each.request.num_output])] if chunk.samples else []
            for each, chunk in zip(asked, chunks, strict=True)
        ]
        self.scheduler.apply(chunks, said)
        for each, samples in zip(asked, said, strict=True):
            if samples:
                self.see(each)
        return True

    def wait(self) -> bool:
        sends = [user.next_s for user in self.users if user.next_s is not None]
        ahead = [each.reaches_s for each in self.under_way]
        ahead += sends if len(self.sent) < self.num else []
        self.now = max(self.now, min(ahead, default=self.now))
        return bool(ahead)

    def send(self, user: User, at: float) -> None:
        if not user.turns_left:
            user.history = list(self.rng.choice(self.systems))
            user.turns_left = self.rng.randint(1, 4)
        user.history = user.history + self.tokens(self.rng.randint(25, 80))
        user.turns_left, user.next_s = user.turns_left - 1, None
        reply = self.tokens(self.rng.randint(4, 60))
        params = SamplingParams(max_tokens=len(reply))
        request = Request(list(user.history), BLOCK_SIZE, root_hash(), params)
        reaches_s = at + self.rng.uniform(0.0005, 0.0035)
        self.sent.append(Sent(user, list(user.history), reply, at, reaches_s, request))
        self.under_way.append(self.sent[-1])

    def see(self, each: Sent) -> None:
        at = self.now + self.rng.uniform(0.0003, 0.002)
        each.seen_s.append(max(at, *each.seen_s[-1:], 0.0))
        if each.request.finish_reason is not None:
            each.user.next_s = each.seen_s[-1] + self.rng.random() * 0.1

    def reuse(self) -> Reuse:
        rows = (
            TokenRequest(
                each.prompt,
                reply=each.reply[:-1],
                num_output_tokens=len(each.reply),
                session=row,
                arrival_s=each.sent_s,
                latency_s=each.seen_s[-1] - each.sent_s,
            )
            for row, each in enumerate(self.sent)
        )
        return reuse_of(token_trace(rows, BLOCK_SIZE))

    def hits(self) -> list[int]:
        return [each.request.split.hit for each in self.sent]  # type: ignore[union-attr]


@dataclass(frozen=True)
class Outcome:
    """Tokens of one run: asked for, hit, predicted, the interval, placed on arrival."""

    prompt: int
    served: int
    likeliest: int
    low: int
    high: int
    on_arrival: int
    requests_off: int

    @property
    def inside(self) -> bool:
        return self.low <= self.served <= self.high


def outcome(seed: int, users: int, num: int = 60) -> Outcome:
    run = Run(seed, users, num)
    reuse, served = run.reuse(), np.array(run.hits())
    found = pool_hits(
        lambda chains: ReferencePool(chains, CAPACITY),
        reuse,
        [each.record for each in run.sent],
        whole_steps=True,
    )
    assert found is not None
    totals = [int(found.likeliest.sum()), *found.drawn.sum(axis=1).tolist()]
    on_arrival = int(reuse.hit_blocks(CAPACITY).sum()) * BLOCK_SIZE
    off = int((found.likeliest != served).sum())
    prompt = int(reuse.trace.prompt_tokens.sum())
    return Outcome(prompt, int(served.sum()), totals[0], min(totals), max(totals), on_arrival, off)


@pytest.mark.parametrize(("users", "num_runs"), [(1, 2), (2, 3), (4, 3), (8, 3)])
def test_the_servers_hits_lie_in_the_interval_of_the_prediction(users: int, num_runs: int) -> None:
    found = [outcome(77_000 + 100 * users + seed, users) for seed in range(num_runs)]
    assert all(each.inside for each in found)
    prompt = sum(each.prompt for each in found)
    assert sum(abs(each.likeliest - each.served) for each in found) <= 0.015 * prompt
    if users == 1:
        assert not any(each.requests_off for each in found)
    if users == 8:  # placed on arrival, such a run was "the server disagrees with itself"
        assert sum(abs(each.on_arrival - each.served) for each in found) > 0.1 * prompt


def main(num_runs: int = 8, num: int = 80) -> None:
    """The table of docs/accuracy.md."""
    for users in (1, 2, 4, 6, 8):
        found = [outcome(99_000 + 100 * users + seed, users, num) for seed in range(num_runs)]
        off = [100 * abs(each.likeliest - each.served) / each.prompt for each in found]
        arrival = [100 * abs(each.on_arrival - each.served) / each.prompt for each in found]
        width = [100 * (each.high - each.low) / each.prompt for each in found]
        print(
            f"| {users} | {sum(each.requests_off for each in found)} of {num_runs * num} |"
            f" {np.mean(off):.2f}, {max(off):.2f} | {sum(each.inside for each in found)} of"
            f" {num_runs} | {np.mean(width):.2f} | {np.mean(arrival):.1f}, {max(arrival):.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
