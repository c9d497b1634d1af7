"""Exclusive LRU tiers against lists, and against one LRU of their summed size."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadkit.analysis.reuse import reuse_of
from loadkit.analysis.simulate.tiers import simulate_tiers
from loadkit.core.errors import InputError
from loadkit.traces import TokenRequest, token_trace

Prompts = list[list[int]]


@st.composite
def prompts(draw: st.DrawFn) -> Prompts:
    sent: Prompts = []
    for _ in range(draw(st.integers(1, 14))):
        start = draw(st.sampled_from(sent)) if sent and draw(st.booleans()) else []
        sent.append(start + draw(st.lists(st.integers(0, 1), min_size=not start, max_size=5)))
    return sent


def tier_hits(sent: Prompts, capacities: list[int]) -> list[list[int]]:
    """Tokens (blocks of one) found in each tier; each tier is a list, the oldest first."""
    tiers: list[list[tuple[int, ...]]] = [[] for _ in capacities]
    found = []
    for prompt in sent:
        chain = [tuple(prompt[: end + 1]) for end in range(len(prompt))]
        found.append([0] * len(tiers))
        for block in chain[:-1]:
            where = [level for level, tier in enumerate(tiers) if block in tier]
            if not where:
                break
            found[-1][where[0]] += 1
        for block in reversed(chain):
            for tier in tiers:
                if block in tier:
                    tier.remove(block)
            tiers[0].append(block)
            for level, capacity in enumerate(capacities):
                if len(tiers[level]) > capacity:
                    oldest = tiers[level].pop(0)
                    if level + 1 < len(tiers):
                        tiers[level + 1].append(oldest)
    return found


@settings(max_examples=150, deadline=None)
@given(prompts(), st.lists(st.integers(1, 6), min_size=1, max_size=3))
def test_hits_by_tier_equal_lists_and_add_up_to_one_lru(
    sent: Prompts, capacities: list[int]
) -> None:
    trace = token_trace((TokenRequest(prompt, session=i) for i, prompt in enumerate(sent)), 1)
    reuse = reuse_of(trace)
    tiers = simulate_tiers(reuse, capacities)
    assert tiers.tier_blocks.tolist() == tier_hits(sent, capacities)
    one = reuse.hit_blocks(sum(capacities))
    assert tiers.requests.resident_tokens.tolist() == one.tolist()


def test_what_the_device_evicts_hits_in_host_memory() -> None:
    """Device 2, host 2: [1, 1] goes to the host when [2, 2] comes, and comes back."""
    sent = [[1, 1], [2, 2], [1, 1]]
    trace = token_trace((TokenRequest(prompt, session=i) for i, prompt in enumerate(sent)), 1)
    assert simulate_tiers(reuse_of(trace), [2, 2]).tier_blocks.tolist()[2] == [0, 1]
    assert simulate_tiers(reuse_of(trace), [4, 1]).tier_blocks.tolist()[2] == [1, 0]


def test_replies_and_unfinished_pages_take_room_in_the_first_tier() -> None:
    sent = [TokenRequest([1, 1, 1], reply=[5], session=0), TokenRequest([1, 1, 1], session=1)]
    reuse = reuse_of(token_trace(sent, 2))
    # Blocks (1 1) and (1 1 1 5), touched tail first: a device of one holds the first only.
    assert simulate_tiers(reuse, [1, 1]).tier_blocks.tolist() == [[0, 0], [1, 0]]


def test_four_tiers_are_refused() -> None:
    reuse = reuse_of(token_trace([TokenRequest([1, 2])], 1))
    with pytest.raises(InputError, match="4 tiers"):
        simulate_tiers(reuse, [1, 2, 3, 4])
