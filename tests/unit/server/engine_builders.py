"""A model runner without a model, and helpers to drive an engine with it, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from reference_server.block_tree import BlockTree
from reference_server.engine import Engine, EngineSettings
from reference_server.node import DEVICE, DISK, HOST, Node
from reference_server.request import Chunk, Request, Sample, SamplingParams
from reference_server.tiers import LowerTiers
from reference_server.tiers.lower import Tier

ROOT = b"root"
SEED = 7


def roll(state: int, token: int) -> int:
    """The stub's "K/V" of a token: depends on every token before it."""
    return (state * 1_000_003 + token * 7919 + 13) % (2**61 - 1)


def next_token(state: int, vocabulary: int) -> int:
    return (state >> 7) % vocabulary


def expected_reply(prompt: Sequence[int], num: int, vocabulary: int) -> list[int]:
    """What the stub model says to a prompt, whatever the cache does."""
    state = SEED
    for token in prompt:
        state = roll(state, token)
    reply = []
    for _ in range(num):
        reply.append(next_token(state, vocabulary))
        state = roll(state, reply[-1])
    return reply


class CheckingRunner:
    """Keeps what was written to each slot and checks on every step that a chunk finds its own
    prefix behind its page table: any page shared, freed or reused wrongly is an AssertionError."""

    max_model_len = 10_000

    def __init__(self, block_size: int, vocabulary: int = 3):
        self.block_size, self.vocab_size = block_size, vocabulary
        self.memory: dict[tuple[int, int], int] = {}
        self.broken = False
        self.fail_for: set[Request] = set()
        self.wrong_accesses: list[str] = []
        self.tree: BlockTree | None = None  # set: writing into a resident page is a fault
        self.pages: CheckingRunner | None = self

    # -- reference_server.tiers.Pages

    def read(self, page: int) -> dict[int, int]:
        return {at: state for (p, at), state in self.memory.items() if p == page}

    def write(self, page: int, payload: dict[int, int]) -> None:
        for place in range(self.block_size):
            self.memory.pop((page, place), None)
        self.memory.update({(page, at): state for at, state in payload.items()})

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        held = self.read(source)
        self.write(target, {at: held[at] for at in range(num_tokens)})

    # -- reference_server.runner.ModelRunner

    def execute(self, chunks: Sequence[Chunk]) -> list[list[Sample]]:
        self.probe()
        if any(chunk.request in self.fail_for for chunk in chunks):
            raise ValueError("this request breaks the model")
        for chunk in chunks:
            self._write(chunk)
        return [self._read(chunk) for chunk in chunks]

    def probe(self) -> None:
        if self.broken:
            raise RuntimeError("the device is lost")

    def _write(self, chunk: Chunk) -> None:
        state = SEED
        resident = device_pages(self.tree) if self.tree else []
        for position, token in enumerate(_tokens(chunk)):
            state = roll(state, token)
            if position >= max(chunk.start, chunk.first_writable):
                slot = self._slot(chunk, position)
                if slot[0] in resident:
                    self.wrong_accesses.append(f"write into resident page {slot[0]} of {chunk}")
                self.memory[slot] = state

    def _read(self, chunk: Chunk) -> list[Sample]:
        state, samples = SEED, []
        for position, token in enumerate(_tokens(chunk)):
            state = roll(state, token)
            if self.memory.get(self._slot(chunk, position)) != state:
                self.wrong_accesses.append(f"read at {position} of {chunk}")
            if chunk.samples and position >= chunk.end - 1:
                samples.append(Sample(next_token(state, self.vocab_size)))
        return samples

    def _slot(self, chunk: Chunk, position: int) -> tuple[int, int]:
        page = chunk.request.pages[position // self.block_size]
        return page, position % self.block_size


class DictSlab:
    """Slots in memory. `damaged` slots lose what they hold; `refuses` says when a put fails."""

    def __init__(self, num_slots: int):
        self.num_slots = num_slots
        self.slots: dict[int, tuple[Node, Any]] = {}
        self.damaged: set[int] = set()
        self.refuses: Callable[[], bool] = lambda: False
        self.prefetched: list[int] = []

    def put(self, slot: int, node: Node, payload: Any) -> bool:
        self.damaged.discard(slot)
        self.slots[slot] = (node, payload)
        return not self.refuses()

    def get(self, slot: int, node: Node) -> Any | None:
        held, payload = self.slots[slot]
        assert held is node, "a slot was read that holds another block"
        return None if slot in self.damaged else payload

    def prefetch(self, slot: int, node: Node) -> None:
        self.prefetched.append(slot)

    def found(self) -> list[Node]:
        return []


def make_lower(*capacities: int) -> LowerTiers:
    """Host and disk tiers of these capacities, both in memory."""
    levels = zip((HOST, DISK), capacities, strict=False)
    return LowerTiers([Tier(level, DictSlab(size + 1), size) for level, size in levels])


def _tokens(chunk: Chunk) -> list[int]:
    return [*chunk.request.tokens[: chunk.end], *chunk.draft]


def device_pages(tree: BlockTree) -> list[int]:
    return [node.place for node in tree.nodes.values() if node.tier == DEVICE]


def make_engine(
    num_blocks: int,
    *,
    block_size: int = 4,
    max_batch_tokens: int = 16,
    max_num_seqs: int = 4,
    vocabulary: int = 3,
    lower: LowerTiers | None = None,
    **more: Any,
) -> Engine:
    settings = EngineSettings(
        block_size=block_size,
        num_blocks=num_blocks,
        max_batch_tokens=max_batch_tokens,
        max_num_seqs=max_num_seqs,
        **more,
    )
    runner = CheckingRunner(block_size, vocabulary)
    if lower is not None:
        lower.pages = runner
    engine = Engine(runner, settings, lower=lower)
    runner.tree = engine.tree
    return engine


def make_request(
    engine: Engine,
    prompt: Sequence[int],
    max_tokens: int = 1,
    session: str | None = None,
    **more: Any,
) -> Request:
    params = SamplingParams(max_tokens=max_tokens)
    size = engine.settings.block_size
    return Request(list(prompt), size, ROOT, params, session=session, **more)


def run(
    engine: Engine, prompt: Sequence[int], max_tokens: int = 1, session: str | None = None
) -> Request:
    """One request alone, to its end."""
    request = make_request(engine, prompt, max_tokens, session)
    engine.submit(request)
    run_all(engine)
    return request


def run_all(engine: Engine) -> None:
    while engine.step():
        check_pages(engine)
    check_pages(engine)


def check_pages(engine: Engine) -> None:
    """Every page is in exactly one state, capacity is kept, and nothing was read wrongly."""
    tree: BlockTree = engine.tree
    running = engine.scheduler.running
    resident = device_pages(tree)
    held = [page for r in running for page in r.pages[len(r.nodes) :]]
    free = tree.pool.num_free
    assert free + len(resident) + tree.pool.num_dead + len(held) + 1 == tree.pool.num_pages
    assert len(set(resident + held)) == len(resident) + len(held)
    assert tree.pool.num_counted <= tree.pool.num_blocks
    assert all(node.ref >= 0 for node in tree.nodes.values())
    assert tree.pool.num_resident == len(resident)
    assert tree.pool.num_pinned == len({n.place for r in running for n in r.nodes})
    assert tree.pool.num_reserved >= 0
    for tier in tree.lower.tiers:
        assert len(tier.entries) <= tier.capacity
        assert len(tier.entries) + len(tier.free) == tier.slab.num_slots
    for node in tree.nodes.values():
        assert node.tier >= DEVICE
        assert node.parent is None or node.parent.tier == DEVICE, "a parent left before its child"
    for request in running:
        split = request.split
        assert split is not None
        parts = split.replay, split.genuine, split.miss_capacity, split.miss_compulsory
        assert min(parts) >= 0
        assert sum(parts) == request.num_prompt
        assert sum(request.tier_tokens) == split.hit or request.leader is not None
    assert not engine.runner.wrong_accesses  # type: ignore[attr-defined]
