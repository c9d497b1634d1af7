"""The analyzer's split at a capacity against the reference server's scheduler, request by request.

The scheduler runs without a model: replies are made up beforehand. How many tokens hit is found in
two ways: a tree with pages and pins on one side, stack positions on the other. What else goes into
a split the two have in common: the block and prompt hashes, the rule that a prompt's last block is
computed again, and the order of causes. So causes and bounds are also checked against
`by_definition`, which has neither hashes nor loadkit's rules, only prompts compared as lists.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from loadkit.analysis import per_request
from loadkit.core.blocks import root_hash
from loadkit.core.split import Split
from loadkit.traces import TokenRequest, token_trace
from reference_server.block_tree import BlockTree
from reference_server.request import Request, Sample, SamplingParams
from reference_server.scheduler import Scheduler

Sent = list[tuple[list[int], list[int], str]]


@st.composite
def conversations(draw: st.DrawFn) -> Sent:
    """(prompt, sampled reply, session) over two token values; many prompts go on from earlier."""
    sent: Sent = []
    for _ in range(draw(st.integers(1, 12))):
        start: list[int] = []
        if sent and draw(st.booleans()):
            before = draw(st.sampled_from(sent))
            start = before[0] + (before[1] if draw(st.booleans()) else [])
        more = draw(st.lists(st.integers(0, 1), min_size=not start, max_size=5))
        reply = draw(st.lists(st.integers(0, 1), min_size=1, max_size=5))
        sent.append((start + more, reply, draw(st.sampled_from("abc"))))
    return sent


def served(sent: Sent, block_size: int, num_blocks: int, chunk: int) -> list[Split | None]:
    """Splits as the scheduler accounts them, one request after another."""
    scheduler = Scheduler(
        BlockTree(num_blocks, 1), block_size, max_batch_tokens=chunk, max_num_seqs=1
    )
    splits = []
    for prompt, reply, session in sent:
        request = Request(
            list(prompt),
            block_size,
            root_hash(),
            SamplingParams(max_tokens=len(reply)),
            session=session,
        )
        scheduler.add(request)
        while request.finish_reason is None:
            chunks = scheduler.plan()
            tokens = [[Sample(reply[c.request.num_output])] if c.samples else [] for c in chunks]
            scheduler.apply(chunks, tokens)
        splits.append(request.split)
    return splits


def by_definition(sent: Sent, hits: list[int], block_size: int) -> list[Split]:
    """The causes of so many hit tokens, from the prompts themselves; evictions are left out."""
    splits: list[Split] = []
    prompts: list[tuple[list[int], str]] = []
    chains: list[tuple[list[int], str]] = []  # what was computed: all but the last sampled token
    for (prompt, reply, session), hit in zip(sent, hits, strict=True):
        before = [name for said, name in prompts if said == prompt]
        own = max((common(prompt, chain) for chain, name in chains if name == session), default=0)
        mine = min(hit, own // block_size * block_size)
        if session in before:
            split = Split(len(prompt), replay_same_session=hit)
        elif before:
            split = Split(len(prompt), replay_cross_session=hit)
        else:
            split = Split(len(prompt), continuation=mine, shared=hit - mine)
        seen = max((common(prompt, chain) for chain, _ in chains), default=0)
        assert hit % block_size == 0
        assert hit <= min(seen, len(prompt) - 1)
        splits.append(split)
        prompts.append((prompt, session))
        chains.append((prompt + reply[:-1], session))
    return splits


def common(one: list[int], other: list[int]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


@settings(max_examples=200)
@given(conversations(), st.integers(1, 4), st.integers(1, 6))
def test_splits_agree_to_the_token_at_every_capacity(
    sent: Sent, block_size: int, chunk: int
) -> None:
    pages = [-(-(len(prompt) + len(reply) - 1) // block_size) for prompt, reply, _ in sent]
    trace = token_trace(
        (TokenRequest(prompt, reply=reply[:-1], session=name) for prompt, reply, name in sent),
        block_size,
    )
    for capacity in range(max(pages), sum(pages) + 2):
        predicted = per_request(trace, capacity)
        rows = [predicted.split(row) for row in range(len(sent))]
        assert rows == served(sent, block_size, capacity, chunk)
        without = [structs.replace(row, miss_capacity=0) for row in rows]
        assert without == by_definition(sent, [row.hit for row in rows], block_size)
    # The last capacity holds everything: whatever was computed before hits, but the last block.
    assert [row.hit for row in rows] == reusable(sent, block_size)


def reusable(sent: Sent, block_size: int) -> list[int]:
    """Tokens of whole blocks that an infinite cache has, one of each prompt left to compute."""
    hits, chains = [], list[list[int]]()
    for prompt, reply, _ in sent:
        most = max((common(prompt, chain) for chain in chains), default=0)
        hits.append(min(most, len(prompt) - 1) // block_size * block_size)
        chains.append(prompt + reply[:-1])
    return hits
