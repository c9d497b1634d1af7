"""Eviction policies against a slow, literal simulation, libcachesim, and the exact pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadkit.analysis.nodes import node_stream
from loadkit.analysis.per_request import per_request_of
from loadkit.analysis.reuse import reuse_of
from loadkit.analysis.simulate.answers import Asked, Rates, answers, rates_of
from loadkit.analysis.simulate.policies import POLICIES, simulate
from loadkit.analysis.weighted import weighted_hits
from loadkit.core.errors import CannotMeasure, InputError
from loadkit.core.split import Split
from loadkit.core.trace import Trace
from loadkit.traces import TokenRequest, token_trace

Chain = tuple[int, ...]


@dataclass
class Served:
    """A request of the oracle: token tuples, whether its prompt is new, and its times."""

    prompt: Chain
    reply: Chain
    new: bool
    arrival_s: float
    latency_s: float


@st.composite
def logs(draw: st.DrawFn) -> tuple[int, list[Served]]:
    """Prompts over two token values, so that they share beginnings, repeat and extend each other."""
    block_size = draw(st.integers(1, 3))
    served: list[Served] = []
    for row in range(draw(st.integers(1, 16))):
        history: Chain = ()
        if served and draw(st.booleans()):
            before = draw(st.sampled_from(served))
            history = before.prompt + (before.reply if draw(st.booleans()) else ())
        more = tuple(draw(st.lists(st.integers(0, 1), min_size=not history, max_size=5)))
        reply = tuple(draw(st.lists(st.integers(0, 1), max_size=4)))
        prompt = history + more
        new = all(prompt != other.prompt for other in served)
        latency = draw(st.sampled_from([0.0, 0.5, 1.0, 3.5]))
        served.append(Served(prompt, reply, new, float(row), latency))
    return block_size, served


def trace_of(served: Sequence[Served], block_size: int, timed: bool = True) -> Trace:
    return token_trace(
        (
            TokenRequest(
                each.prompt,
                reply=each.reply,
                session=row,
                arrival_s=each.arrival_s if timed else None,
                latency_s=each.latency_s if timed else None,
            )
            for row, each in enumerate(served)
        ),
        block_size,
    )


# --- the literal simulation ---------------------------------------------------------------------


@dataclass
class Entry:
    """What the oracle knows of one resident block (a tuple of tokens) or page (an object)."""

    key: Any
    uses: int = 0
    tick: int = 0
    score: float = 0.0
    protected: bool = False


@dataclass
class Oracle:
    """Dictionaries and full scans, no heap: the policies as they are described."""

    policy: str
    capacity: int
    block_size: int
    entries: dict[Any, Entry] = field(default_factory=dict)
    tick: int = 0
    clock: float = 0.0
    window: int = 10_000
    new: list[bool] = field(default_factory=list)

    def blocks(self, tokens: Chain) -> list[Chain]:
        size = self.block_size
        return [tokens[: end * size] for end in range(1, len(tokens) // size + 1)]

    def arrive(self, request: Served) -> int:
        """Leading blocks hit, by vLLM's rule."""
        chain = self.blocks(request.prompt)
        hit = 0
        while hit < len(chain) and chain[hit] in self.entries:
            hit += 1
        self.new.append(request.new)
        self.occupy(request, chain, counted=chain, page=None)
        return min(hit, (len(request.prompt) - 1) // self.block_size)

    def complete(self, request: Served) -> None:
        tokens = request.prompt + request.reply
        chain, prompt = self.blocks(tokens), self.blocks(request.prompt)
        page = object() if len(tokens) % self.block_size else None
        self.occupy(request, chain, counted=chain[len(prompt) :], page=page)

    def occupy(
        self, request: Served, chain: list[Chain], counted: list[Chain], page: object | None
    ) -> None:
        in_use: list[Any] = [*chain[::-1]]
        if page is not None:
            in_use.insert(0, page)
        for key in in_use:
            fresh = key not in self.entries
            entry = self.entries.setdefault(key, Entry(key))
            self.tick += 1
            entry.tick = self.tick
            if key is page:
                entry.score = self.clock
                continue
            if key in counted and (self.policy != "diversity" or request.new):
                entry.uses += 1
            entry.uses = max(entry.uses, 1)
            if key in counted and not fresh:
                entry.protected = True
            entry.score = self.value(entry)
        self.demote()
        self.make_room(in_use)

    def value(self, entry: Entry) -> float:
        if self.policy == "lfu":
            return self.clock + entry.uses
        if self.policy == "lfu-plain":
            return entry.uses
        if self.policy == "gdsf":
            depth = len(entry.key) // self.block_size - 1
            return self.clock + entry.uses * (1 + depth * self.block_size / 30_600)
        recent = self.new[-self.window :]
        return self.clock + sum(recent) / len(recent) * entry.uses

    def demote(self) -> None:
        while self.policy == "slru":
            protected = [entry for entry in self.entries.values() if entry.protected]
            if len(protected) <= int(0.8 * self.capacity):
                return
            oldest = min(protected, key=lambda entry: entry.tick)
            self.tick += 1
            oldest.protected, oldest.tick = False, self.tick

    def make_room(self, in_use: list[Any]) -> None:
        while len(self.entries) > self.capacity:
            parents = {key[: -self.block_size] for key in self.entries if isinstance(key, tuple)}
            leaves = [
                entry
                for key, entry in self.entries.items()
                if key not in in_use and key not in parents
            ]
            if leaves:
                victim = min(leaves, key=self.order)
                if self.policy not in ("lru", "slru", "lfu-plain"):
                    self.clock = max(self.clock, victim.score)
                del self.entries[victim.key]
            else:
                del self.entries[next(key for key in in_use if key in self.entries)]

    def order(self, entry: Entry) -> tuple[float, int]:
        first = {"lru": 0.0, "slru": float(entry.protected)}.get(self.policy, entry.score)
        return first, entry.tick


def oracle_hits(
    policy: str, capacity: int, block_size: int, served: Sequence[Served], window: int = 10_000
) -> list[int]:
    happenings = [(each.arrival_s, 0, row) for row, each in enumerate(served)]
    happenings += [(each.arrival_s + each.latency_s, 1, row) for row, each in enumerate(served)]
    oracle, hits = Oracle(policy, capacity, block_size, window=window), [0] * len(served)
    for _, completes, row in sorted(happenings):
        if completes:
            oracle.complete(served[row])
        else:
            hits[row] = oracle.arrive(served[row])
    return hits


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=60, deadline=None)
@given(log=logs())
def test_hits_equal_the_literal_simulation_at_every_capacity(
    policy: str, log: tuple[int, list[Served]]
) -> None:
    block_size, served = log
    reuse = reuse_of(trace_of(served, block_size))
    for capacity in range(1, reuse.trace.num_ids + 3):
        found = simulate(reuse, policy, capacity).requests.resident_tokens // block_size
        assert found.tolist() == oracle_hits(policy, capacity, block_size, served)


@settings(max_examples=60, deadline=None)
@given(log=logs(), window=st.integers(1, 6))
def test_the_diversity_index_looks_back_on_a_window_of_arrivals(
    log: tuple[int, list[Served]], window: int
) -> None:
    block_size, served = log
    reuse = reuse_of(trace_of(served, block_size))
    for capacity in range(1, reuse.trace.num_ids + 3):
        found = simulate(reuse, "diversity", capacity, diversity_window=window)
        hits = found.requests.resident_tokens // block_size
        assert hits.tolist() == oracle_hits("diversity", capacity, block_size, served, window)


def test_the_policies_differ_in_that_test() -> None:
    """Four blocks of room: 1 is used three times, then 2, 3, 4 come, then 1 again."""
    sent = [Served((n, 9), (), True, 0, 0) for n in (1, 1, 1, 2, 3, 4, 1)]
    for row, each in enumerate(sent):
        each.new, each.arrival_s = row in (0, 3, 4, 5), float(row)
    hits = {policy: oracle_hits(policy, 4, 1, sent)[-1] for policy in POLICIES}
    assert hits["lru"] == 0
    assert hits["slru"] == hits["lfu-plain"] == 1


# --- what each policy keeps, by eye -------------------------------------------------------------


def hits_in_blocks_of_one(
    policy: str, capacity: int, prompts: Sequence[Sequence[int]]
) -> list[int]:
    trace = token_trace((TokenRequest(p, session=i) for i, p in enumerate(prompts)), 1)
    return simulate(reuse_of(trace), policy, capacity).requests.resident_tokens.tolist()


def test_a_replayed_prompt_feeds_lfu_but_not_diversity() -> None:
    """Room for four blocks. [1, 1] is sent four times; then 2 brings three different prompts, and
    5 and 6 press. Afterwards LFU has kept the replayed prompt, Diversity the shared beginning."""
    prompts = [[1, 1]] * 4 + [[2, 3], [2, 4], [2, 5], [5], [6]]
    assert hits_in_blocks_of_one("lfu", 4, [*prompts, [1, 1]])[-1] == 1
    assert hits_in_blocks_of_one("diversity", 4, [*prompts, [1, 1]])[-1] == 0
    assert hits_in_blocks_of_one("diversity", 4, [*prompts, [2, 9]])[-1] == 1


def test_lfu_forgets_old_favourites_in_time() -> None:
    """Used five times, then never: after enough other prompts its place is worth more to them."""
    once = [[n, 0] for n in range(10, 40)]
    assert hits_in_blocks_of_one("lfu", 4, [[1, 0]] * 5 + once[:3] + [[1, 0]])[-1] == 1
    assert hits_in_blocks_of_one("lfu", 4, [[1, 0]] * 5 + once + [[1, 0]])[-1] == 0


def test_the_split_of_a_simulated_cache_adds_up() -> None:
    first = TokenRequest([1, 2, 3, 4, 5], session="a")
    sent = [first, TokenRequest([7, 7, 7], session="b"), first]
    requests = simulate(reuse_of(token_trace(sent, 1)), "lru", 5).requests
    assert requests.split(2) == Split(5, replay_same_session=2, miss_capacity=2)
    assert requests.total() == Split(13, replay_same_session=2, miss_capacity=2)


@settings(max_examples=100, deadline=None)
@given(logs())
def test_lru_equals_the_exact_pass(log: tuple[int, list[Served]]) -> None:
    block_size, served = log
    reuse = reuse_of(trace_of(served, block_size))
    for capacity in (1, 2, 5, 9, None):
        simulated = simulate(reuse, "lru", capacity).requests
        assert simulated.total() == per_request_of(reuse, capacity).total()


# --- libcachesim: where chains are single blocks, its policies mean the same --------------------


def libcachesim_hits(name: str, capacity: int, blocks: Sequence[int]) -> list[bool]:
    libcachesim = pytest.importorskip("libcachesim")
    cache = getattr(libcachesim, name)(cache_size=capacity, hashpower=10)
    return [
        bool(cache.get(libcachesim.Request(obj_id=int(block) + 1, obj_size=1))) for block in blocks
    ]


@pytest.mark.parametrize(("policy", "name"), [("lru", "LRU"), ("lfu-plain", "LFU")])
@pytest.mark.parametrize("capacity", [3, 10, 40])
def test_single_blocks_hit_as_in_libcachesim(policy: str, name: str, capacity: int) -> None:
    blocks = np.random.default_rng(3).zipf(1.2, 3000) % 200
    trace = token_trace((TokenRequest([int(b), 0], session=i) for i, b in enumerate(blocks)), 1)
    # The second block of every prompt is a leaf that never hits (the last token is computed), so
    # the log is cut to its first blocks: one block a request, and the rule allows it to hit.
    heads = Trace(
        block_size=1,
        prompt_tokens=trace.prompt_tokens,
        block_ptr=np.arange(len(blocks) + 1),
        block_ids=trace.block_ids[::2],
        prompt_key=trace.prompt_key,
        session=trace.session,
        num_sessions=trace.num_sessions,
        sessions_inferred=False,
        output_tokens=trace.output_tokens,
    )
    found = simulate(reuse_of(heads), policy, capacity).requests.resident_tokens > 0
    assert found.tolist() == libcachesim_hits(name, capacity, blocks)


# --- TTL ----------------------------------------------------------------------------------------


def fixed_ttl_hits(served: Sequence[Served], block_size: int, ttl_s: float) -> list[int]:
    """An infinite cache by its definition: who computed each block last, and when."""
    happenings = [(each.arrival_s, 0, row) for row, each in enumerate(served)]
    happenings += [(each.arrival_s + each.latency_s, 1, row) for row, each in enumerate(served)]
    computed: dict[Chain, float] = {}
    hits = [0] * len(served)
    for now, completes, row in sorted(happenings):
        tokens = served[row].prompt + (served[row].reply if completes else ())
        chain = [tokens[: end + 1] for end in range(len(tokens)) if (end + 1) % block_size == 0]
        alive = [block in computed and now - computed[block] <= ttl_s for block in chain]
        if completes:
            start = len(served[row].prompt) // block_size
        else:
            start = hits[row] = min(
                ([*alive, False]).index(False), (len(served[row].prompt) - 1) // block_size
            )
        for k, block in enumerate(chain):
            if k >= start or not alive[k]:
                computed[block] = now
    return hits


@settings(max_examples=100, deadline=None)
@given(logs(), st.sampled_from([0.5, 1.0, 2.5, 4.0]))
def test_a_fixed_ttl_counts_from_when_a_block_was_computed(
    log: tuple[int, list[Served]], ttl_s: float
) -> None:
    block_size, served = log
    found = simulate(reuse_of(trace_of(served, block_size)), ttl_s=ttl_s).requests.resident_tokens
    assert (found // block_size).tolist() == fixed_ttl_hits(served, block_size, ttl_s)


@settings(max_examples=100, deadline=None)
@given(logs(), st.sampled_from([0.5, 1.0, 2.5, 4.0]), st.sampled_from([1, 3, 6, None]))
def test_a_ttl_with_refresh_equals_the_weighted_pass(
    log: tuple[int, list[Served]], ttl_s: float, capacity: int | None
) -> None:
    block_size, served = log
    trace = trace_of(served, block_size)
    simulated = simulate(reuse_of(trace), "lru", capacity, ttl_s=ttl_s, refresh=True)
    weighted = weighted_hits(node_stream(trace), [capacity], [ttl_s])
    assert simulated.requests.total() == weighted.split(0)


@settings(max_examples=60, deadline=None)
@given(logs(), st.sampled_from(["vllm", "sglang", "none"]))
def test_all_ttls_that_use_prolongs_come_from_one_pass_and_are_what_simulation_finds(
    log: tuple[int, list[Served]], engine: str
) -> None:
    block_size, served = log
    reuse = reuse_of(trace_of(served, block_size), engine)
    asked = Asked(capacities=(1, 3, None), ttls_s=(4.0, 0.5))
    known = [
        rates_of(simulate(reuse, "lru", capacity, ttl_s=ttl_s, refresh=True).requests)
        for ttl_s in asked.ttls_s
        for capacity in asked.capacities
    ]
    found = answers(reuse, asked)["ttl"]
    told = [Rates(**{name: point[name] for name in Rates.__struct_fields__}) for point in found]
    assert told == known


def test_use_does_not_prolong_a_fixed_ttl() -> None:
    """Every 2 s the same prompt, TTL 3 s: with refresh always a hit, else every other time."""
    sent = [TokenRequest([1, 1], session=n, arrival_s=2.0 * n) for n in range(5)]
    reuse = reuse_of(token_trace(sent, 1))
    fixed = simulate(reuse, ttl_s=3).requests.resident_tokens
    assert fixed.tolist() == [0, 1, 0, 1, 0]
    refreshed = simulate(reuse, ttl_s=3, refresh=True).requests.resident_tokens
    assert refreshed.tolist() == [0, 1, 1, 1, 1]


def test_what_cannot_be_simulated_is_refused() -> None:
    reuse = reuse_of(token_trace([TokenRequest([1, 2])], 1))
    with pytest.raises(InputError, match="unknown policy 'fifo'"):
        simulate(reuse, "fifo")
    with pytest.raises(InputError, match="a TTL with lfu"):
        simulate(reuse, "lfu", ttl_s=1)
    with pytest.raises(InputError, match="not above 0"):
        simulate(reuse, ttl_s=-1.0)
    with pytest.raises(CannotMeasure, match="needs timestamps"):
        simulate(reuse, ttl_s=60)
