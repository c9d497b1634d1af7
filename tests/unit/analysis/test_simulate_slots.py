"""llama.cpp's slots, by eye. A live server checks the same rule in tests/e2e."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadkit.analysis.reuse import reuse_of
from loadkit.analysis.simulate.slots import SlotCache, common_prefix, simulate_slots
from loadkit.core.errors import InputError
from loadkit.traces import TokenRequest, token_trace


def served(*sent: TokenRequest, slots: int = 2, similarity: float = 0.1) -> SlotCache:
    return simulate_slots(reuse_of(token_trace(sent, 1), "llamacpp"), slots, similarity)


def prompts(*tokens: list[int]) -> list[TokenRequest]:
    return [TokenRequest(prompt, session=row) for row, prompt in enumerate(tokens)]


def test_the_same_prompt_again_computes_its_last_token() -> None:
    assert served(*prompts([1, 2, 3], [1, 2, 3])).requests.resident_tokens.tolist() == [0, 2]


def test_unused_slots_come_first_from_the_highest_number() -> None:
    result = served(*prompts([1, 1], [2, 2], [3, 3]))
    assert result.chosen.tolist() == [1, 0, 1]


def test_a_slot_holds_one_sequence_only() -> None:
    """One slot: a common beginning of 2 of 4 is kept, what the slot had behind it is lost."""
    result = served(*prompts([1, 2, 3, 4], [1, 2, 5, 6], [1, 2, 3, 4]), slots=1)
    assert result.requests.resident_tokens.tolist() == [0, 2, 2]
    # In a radix cache the third prompt would have hit 3 tokens.
    assert result.requests.split(2).miss_capacity == 1


def test_a_short_common_beginning_does_not_choose_a_slot() -> None:
    """1 of 10 tokens is not more than 10%: the second prompt takes the unused slot."""
    long = [1, *range(50, 59)]
    result = served(*prompts([1, 2], long))
    assert result.chosen.tolist() == [1, 0]
    assert result.requests.resident_tokens.tolist() == [0, 0]
    assert served(*prompts([1, 2], long), similarity=0.05).chosen.tolist() == [1, 1]


def test_the_slot_idle_longest_is_overwritten_yet_its_beginning_counts() -> None:
    """Two slots used; the third prompt shares 1 of 20 tokens with the one it overwrites."""
    result = served(*prompts([1, 2], [3, 4], [1, *range(50, 69)]))
    assert result.chosen.tolist() == [1, 0, 1]
    assert result.requests.resident_tokens.tolist() == [0, 0, 1]


def test_a_reply_is_continued() -> None:
    first = TokenRequest([1, 2], reply=[3, 4], session=0)
    result = served(first, TokenRequest([1, 2, 3, 4, 5], session=0))
    assert result.requests.split(1).continuation == 4


def test_a_busy_slot_cannot_be_chosen() -> None:
    """The same prompt at 0 and 1, each for 5 s: the second goes to the other slot and misses."""
    twins = [TokenRequest([1, 2, 3], session=n, arrival_s=float(n), latency_s=5) for n in range(3)]
    result = served(*twins)
    assert result.chosen.tolist() == [1, 0, 1]  # the third waits until 5
    assert result.requests.resident_tokens.tolist() == [0, 0, 2]


chains = st.lists(st.integers(0, 1), max_size=12)


@given(chains, chains)
def test_common_prefix_counts_equal_leading_tokens(one: list[int], other: list[int]) -> None:
    requests = [TokenRequest(one), TokenRequest(other)]
    trace = token_trace(requests, 1)
    first, second = np.split(trace.block_ids, [len(one)])
    same = [a == b for a, b in zip(one, other, strict=False)]
    assert common_prefix(first, second) == [*same, False].index(False)


def test_no_slots_or_an_impossible_similarity_are_refused() -> None:
    with pytest.raises(InputError, match="0 slots"):
        served(*prompts([1]), slots=0)
    with pytest.raises(InputError, match=r"similarity 1\.5"):
        served(*prompts([1]), similarity=1.5)
