"""llama.cpp's slots, by eye. A live server checks the same rule in tests/e2e."""

from __future__ import annotations

from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadkit.analysis.reuse import reuse_of
from loadkit.analysis.simulate import host_cache
from loadkit.analysis.simulate.host_cache import HostCache, common_prefix
from loadkit.analysis.simulate.slots import SlotCache, simulate_slots
from loadkit.core.errors import InputError
from loadkit.traces import TokenRequest, token_trace


def served(
    *sent: TokenRequest,
    slots: int = 2,
    similarity: float = 0.1,
    host: HostCache | None = None,
    order: list[int] | None = None,
) -> SlotCache:
    reuse = reuse_of(token_trace(sent, 1), "llamacpp")
    rows = None if order is None else np.array(order)
    return simulate_slots(reuse, slots, similarity, host=host, order=rows)


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


def test_a_latency_that_was_observed_includes_the_wait_for_a_slot() -> None:
    """Both slots are busy until 5. What arrived at 1 and completed at 7 ran for 2 s: its slot is idle
    at 8. Were 6 s the running alone, it would be busy until 11."""
    waited = [
        TokenRequest([1, 2, 3], session=0, arrival_s=0.0, latency_s=5),
        TokenRequest([4, 5, 6], session=1, arrival_s=0.0, latency_s=5),
        TokenRequest([1, 2, 7], session=2, arrival_s=1.0, latency_s=6),
        TokenRequest([1, 2, 7, 8], session=3, arrival_s=8.0, latency_s=1),
    ]
    assert served(*waited, order=[0, 1, 2, 3]).requests.resident_tokens.tolist() == [0, 0, 2, 3]
    assert served(*waited).requests.resident_tokens.tolist() == [0, 0, 2, 0]


def test_requests_are_served_in_the_order_in_which_the_server_began_them() -> None:
    """One slot; the second was sent together with the first and third, and got its turn last."""
    sent = [
        TokenRequest(prompt, session=row, arrival_s=0.0, latency_s=latency)
        for row, (prompt, latency) in enumerate([([1, 2, 3], 1), ([4, 5, 6], 3), ([1, 2, 7], 2)])
    ]
    assert served(*sent, slots=1).requests.resident_tokens.tolist() == [0, 0, 0]
    hits = served(*sent, slots=1, order=[0, 2, 1]).requests.resident_tokens.tolist()
    assert hits == [0, 0, 2]


def test_host_memory_brings_an_overwritten_sequence_back() -> None:
    """One slot, two users in turns: without it nothing hits, with it all but the new tokens do."""
    turns = prompts([1, 2, 3], [4, 5, 6], [1, 2, 3, 7], [4, 5, 6, 8])
    assert served(*turns, slots=1).requests.resident_tokens.tolist() == [0, 0, 0, 0]
    hits = served(*turns, slots=1, host=HostCache()).requests.resident_tokens.tolist()
    assert hits == [0, 0, 3, 3]


def test_a_slot_that_keeps_half_of_itself_is_not_exchanged() -> None:
    """[1 2 3 9] keeps 2 of 4 for [1 2 7 8]: no exchange, though [1 2 7] (all kept) is there."""
    host = HostCache()
    host.save(np.array([1, 2, 7]))
    turns = prompts([1, 2, 3, 9], [1, 2, 7, 8])
    assert served(*turns, slots=1, host=host).requests.resident_tokens.tolist() == [0, 2]


def test_saved_sequences_of_little_use_stay() -> None:
    host = HostCache()
    long = np.arange(1, 11)
    host.save(long)
    nothing = np.zeros(0, np.int64)
    assert len(host.take_for(np.array([1, 2, 50]), nothing)) == 0  # 2 of 10 are less than a quarter
    assert host.take_for(np.array([1, 2, 3, 50]), nothing) is long  # 3 of 10 are not
    assert host.saved == []


def test_the_beginning_of_a_saved_sequence_is_not_saved_beside_it() -> None:
    host = HostCache()
    for tokens in ([1, 2], [1, 2, 3], [1], [9]):
        host.save(np.array(tokens))
    assert [saved.tolist() for saved in host.saved] == [[1, 2, 3], [9]]


def test_idle_slots_are_saved_when_a_request_starts_elsewhere() -> None:
    """Two slots: the second request saves the first's sequence. Slots of one buffer lose it too, so
    the third finds it in host memory, in another slot."""
    host, unified = HostCache(), HostCache(empties_idle=True)
    turns = prompts([1, 2, 3], [4, 5, 6], [1, 2, 3, 7])
    assert served(*turns, host=host).chosen.tolist() == [1, 0, 1]
    result = served(*turns, host=unified)
    assert result.chosen.tolist() == [1, 0, 1]
    assert result.requests.resident_tokens.tolist() == [0, 0, 3]
    assert len(unified.saved) == 1
    assert len(host.saved) == 2


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


def begins_with(one: list[int], other: list[int]) -> bool:
    return one[: len(other)] == other


def expected_after(
    saved: list[list[int]], prompt: list[int], held: list[int]
) -> tuple[list[int], list[list[int]]]:
    """The rule word for word over a list: what the slot holds after saving and looking for better."""
    if held and not any(begins_with(old, held) for old in saved):
        saved = [*(old for old in saved if not begins_with(held, old)), held]

    def worth(ids: list[int]) -> tuple[float, int]:
        same = [a == b for a, b in zip(ids, prompt, strict=False)]
        length = [*same, False].index(False)
        return (length / len(ids) if ids else -1.0, length)

    best, taken = worth(held), held
    for old in saved:
        kept, length = worth(old)
        if kept >= 0.25 and kept > best[0] and length > best[1]:
            best, taken = (kept, length), old
    return taken, [old for old in saved if old is not taken or taken is held]


@given(st.lists(st.tuples(chains, chains), max_size=30))
def test_ordered_rows_do_what_the_rule_does_over_a_list(pairs: list[tuple[list[int], ...]]) -> None:
    trace = token_trace([TokenRequest(ids) for pair in pairs for ids in pair], 1)
    rows = [row.tolist() for row in np.split(trace.block_ids, trace.block_ptr[1:-1])]
    host = HostCache()
    saved: list[list[int]] = []
    for held, prompt in zip(rows[::2], rows[1::2], strict=False):
        host.save(np.array(held, np.int64))
        taken = host.take_for(np.array(prompt, np.int64), np.array(held, np.int64))
        expect, saved = expected_after(saved, prompt, held)
        assert taken.tolist() == expect
        assert [row.tolist() for row in host.saved] == saved


def test_a_save_looks_at_few_of_the_saved_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand users of one system prompt: the thousand-and-first is compared with some ten each
    time, not with all."""
    host = HostCache()
    for user in range(1000):
        host.save(np.array([0, 1, 2 + user * 7919 % 1000]))
    looked_at = Mock(side_effect=common_prefix)
    monkeypatch.setattr(host_cache, "common_prefix", looked_at)
    host.save(np.array([0, 1, 5000]))
    host.take_for(np.array([0, 1, 6000]), np.zeros(0, np.int64))
    assert looked_at.call_count < 80
