"""Dense ids by hash table against dictionaries."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loadkit.traces import interning
from loadkit.traces.interning import (
    ChainStore,
    IdTable,
    dense_by_appearance,
    join_chains,
    renumber,
    take_chains,
)

some_ids = st.lists(st.lists(st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1), max_size=6))


def stored(chains: list[list[int]], *, chained: bool = True) -> tuple[list[int], ChainStore]:
    store = ChainStore(IdTable(chained=chained))
    for chain in chains:
        store.add(chain)
    return store.ids().tolist(), store


@given(some_ids)
def test_equal_ids_get_equal_numbers_in_order_of_appearance(chains: list[list[int]]) -> None:
    numbers: dict[int, int] = {}
    expected = [numbers.setdefault(block, len(numbers)) for chain in chains for block in chain]
    dense, store = stored(chains)
    assert dense == expected
    assert store.table.num_ids == len(numbers)
    assert [store.table.value(number) for number in dense] == [b for c in chains for b in c]


@given(some_ids)
def test_single_blocks_are_told_apart_by_all_that_stands_before(chains: list[list[int]]) -> None:
    numbers: dict[tuple[int, ...], int] = {}
    prefixes = [tuple(chain[: end + 1]) for chain in chains for end in range(len(chain))]
    expected = [numbers.setdefault(prefix, len(numbers)) for prefix in prefixes]
    dense, store = stored(chains, chained=False)
    assert dense == expected
    assert store.table.num_values() == len({block for chain in chains for block in chain})
    assert store.clash is None


@given(some_ids)
def test_the_first_id_with_another_parent_is_found(chains: list[list[int]]) -> None:
    parents: dict[int, int | None] = {}
    expected = None
    for row, chain in enumerate(chains):
        for at, block in enumerate(chain):
            parent = chain[at - 1] if at else None
            if parents.setdefault(block, parent) != parent and expected is None:
                expected = row, block
    _, store = stored(chains)
    found = store.clash
    assert (found and (found[0], store.table.value(found[1]))) == expected


def test_a_hundred_thousand_ids_in_small_chunks_grow_the_table(monkeypatch: object) -> None:
    draw = np.random.default_rng(1)
    ids = draw.integers(-(2**63), 2**63 - 1, 50_000)
    chains = [*ids.reshape(-1, 100).tolist(), *ids.reshape(-1, 100)[::-1].tolist()]
    before, interning._CHUNK = interning._CHUNK, 777
    try:
        dense, store = stored(chains)
    finally:
        interning._CHUNK = before
    order = np.arange(50_000).reshape(-1, 100)
    assert dense == [*order.reshape(-1), *order[::-1].reshape(-1)]
    assert store.clash is None


def test_numbers_follow_the_order_of_appearance() -> None:
    assert dense_by_appearance(np.array([9, 2, 9, 5, 2])).tolist() == [0, 1, 0, 2, 1]
    prompts, replies = np.array([3, 1, 3]), np.array([0, 1, 2])
    renumber(4, prompts, replies)
    assert prompts.tolist() == [0, 1, 0]
    assert replies.tolist() == [2, 1, 3]


def test_chains_are_taken_and_joined_row_by_row() -> None:
    ptr, ids = np.array([0, 2, 2, 3]), np.array([10, 11, 30])
    new_ptr, taken = take_chains(ptr, ids, np.array([2, 1, 0]))
    assert (new_ptr.tolist(), taken.tolist()) == ([0, 1, 1, 3], [30, 10, 11])
    more_ptr, more = np.array([0, 0, 1, 2]), np.array([7, 8])
    both_ptr, both = join_chains(ptr, ids, more_ptr, more)
    assert (both_ptr.tolist(), both.tolist()) == ([0, 2, 3, 5], [10, 11, 7, 30, 8])
