"""Tokens -> blocks -> chained hashes: the one definition of "equal prefix" in analyzer and server.

A block is `block_size` consecutive tokens. Its hash is H(parent hash, tokens), the first parent is
a root made from the model and the isolation salt; so equal hash means equal prefix, same model,
same isolation domain.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

DIGEST_BYTES = 16


def root_hash(model_id: str = "", salt: str = "") -> bytes:
    """Parent of the first block. Different model or salt: no block is ever shared."""
    return hashlib.blake2b(f"{model_id}\0{salt}".encode(), digest_size=DIGEST_BYTES).digest()


def packed_tokens(tokens: Sequence[int]) -> bytes:
    """Token ids as they are hashed, 4 bytes each. OverflowError if one does not fit 32 bits."""
    return array("i", tokens).tobytes()


def unpacked_tokens(packed: bytes) -> list[int]:
    """The token ids of `packed_tokens`."""
    return array("i", packed).tolist()


def block_hashes(tokens: Sequence[int], block_size: int, root: bytes) -> list[bytes]:
    """Chained 128-bit hashes of the full blocks of `tokens`; a partial last block has none.

    Returns `len(tokens) // block_size` digests. Token ids must fit 32 bits (OverflowError if not).
    `root` is `root_hash(...)` or the hash of the block before `tokens[0]`.
    """
    return packed_block_hashes(packed_tokens(tokens), block_size, root)


def packed_block_hashes(packed: bytes, block_size: int, root: bytes) -> list[bytes]:
    """`block_hashes` of `packed_tokens`."""
    blake2b, width = hashlib.blake2b, 4 * block_size
    chain: list[bytes] = []
    parent = root
    for start in range(0, len(packed) - width + 1, width):
        block = packed[start : start + width]
        parent = blake2b(parent + block, digest_size=DIGEST_BYTES).digest()
        chain.append(parent)
    return chain


def prompt_hash(tokens: Sequence[int], root: bytes) -> bytes:
    """Key of a whole prompt, partial last block included: equal only for the identical prompt."""
    return packed_prompt_hash(packed_tokens(tokens), root)


def packed_prompt_hash(packed: bytes, root: bytes) -> bytes:
    """`prompt_hash` of `packed_tokens`."""
    return hashlib.blake2b(packed, key=root, digest_size=DIGEST_BYTES).digest()


def max_hit_blocks(num_prompt_tokens: int, block_size: int) -> int:
    """Most blocks of a prompt that can hit: the last token is always computed (vLLM's rule).

    floor((n - 1) / B): a fully cached prompt whose length is a multiple of B recomputes its last
    block, since the logits of its last token are needed.
    """
    return max(0, (num_prompt_tokens - 1) // block_size)
