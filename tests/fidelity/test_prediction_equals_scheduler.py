"""The analyzer's split at a capacity against the reference server's scheduler, request by request.

The scheduler runs without a model: replies are made up beforehand. The two share the block hash
and nothing else: a tree with pages and pins on one side, stack positions on the other.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

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


@settings(max_examples=200, deadline=None)
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
