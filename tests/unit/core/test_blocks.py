"""Chained block hashes: equal hash means equal prefix, model and salt."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadkit.core.blocks import block_hashes, max_hit_blocks, prompt_hash, root_hash

ROOT = root_hash("model")


def test_a_partial_last_block_has_no_hash() -> None:
    assert len(block_hashes(list(range(10)), 4, ROOT)) == 2
    assert block_hashes([1, 2, 3], 4, ROOT) == []


def test_a_changed_token_changes_its_block_and_all_after_it_but_none_before() -> None:
    before = block_hashes([1, 2, 3, 4, 5, 6, 7, 8, 9], 3, ROOT)
    after = block_hashes([1, 2, 3, 4, 99, 6, 7, 8, 9], 3, ROOT)
    assert before[0] == after[0]
    assert before[1] != after[1]
    assert before[2] != after[2]


def test_the_same_tokens_under_another_model_or_salt_share_nothing() -> None:
    chains = [
        block_hashes([1, 2, 3, 4], 2, root)
        for root in (ROOT, root_hash("other"), root_hash("model", "tenant"))
    ]
    assert len({digest for chain in chains for digest in chain}) == 6


def test_a_chain_can_go_on_from_the_hash_of_its_last_block() -> None:
    whole = block_hashes(list(range(12)), 4, ROOT)
    assert block_hashes(list(range(4, 12)), 4, whole[0]) == whole[1:]


def test_the_hash_is_blake2b_over_parent_and_little_endian_tokens() -> None:
    by_hand = hashlib.blake2b(ROOT + bytes([7, 0, 0, 0, 0, 1, 0, 0]), digest_size=16).digest()
    assert block_hashes([7, 256], 2, ROOT) == [by_hand]


@given(
    st.lists(st.integers(0, 50), max_size=40),
    st.lists(st.integers(0, 50), max_size=40),
    st.integers(1, 8),
)
def test_common_hashes_are_exactly_the_common_full_blocks(
    left: list[int], right: list[int], block_size: int
) -> None:
    common = 0
    while common < min(len(left), len(right)) and left[common] == right[common]:
        common += 1
    same = set(block_hashes(left, block_size, ROOT)) & set(block_hashes(right, block_size, ROOT))
    assert len(same) == common // block_size


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 0), (4, 0), (5, 1), (8, 1), (9, 2)])
def test_the_last_token_is_always_computed(tokens: int, blocks: int) -> None:
    assert max_hit_blocks(tokens, 4) == blocks


def test_a_prompt_key_differs_when_only_the_partial_block_differs() -> None:
    assert prompt_hash([1, 2, 3, 4, 5], ROOT) == prompt_hash([1, 2, 3, 4, 5], ROOT)
    assert prompt_hash([1, 2, 3, 4, 5], ROOT) != prompt_hash([1, 2, 3, 4, 6], ROOT)
    assert prompt_hash([1, 2, 3, 4, 5], ROOT) != prompt_hash([1, 2, 3, 4, 5], root_hash("other"))
