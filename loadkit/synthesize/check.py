"""Looks at what was written: is every block told apart, and shared, as it was planned?"""

from __future__ import annotations

from collections.abc import Sequence

from loadkit.core.blocks import packed_block_hashes, packed_prompt_hash, packed_tokens, root_hash


class Check:
    """Counts what the prompts, as token ids, do otherwise than planned.

    lost_blocks: full prompt blocks whose content is not one-to-one with their key, chained.
    lost_prompts: requests whose prompt is identical to another's though planned different, or the
    reverse. wrong_lengths: prompts of another number of tokens than planned.
    """

    def __init__(self, block_size: int):
        self.block_size, self._root = block_size, root_hash()
        self._hash_of_key: dict[int, bytes] = {}
        self._key_of_hash: dict[bytes, int] = {}
        self._hash_of_prompt: dict[int, bytes] = {}
        self._prompt_of_hash: dict[bytes, int] = {}
        self.lost_blocks = self.lost_prompts = self.wrong_lengths = 0

    def add(
        self, tokens: Sequence[int], num_planned: int, keys: Sequence[int], prompt_key: int
    ) -> None:
        """A written prompt and its plan: tokens, keys of its blocks, key of the whole prompt."""
        self.wrong_lengths += len(tokens) != num_planned
        packed = packed_tokens(tokens)
        hashes = packed_block_hashes(packed, self.block_size, self._root)
        for key, found in zip(keys, hashes, strict=False):
            self.lost_blocks += not _paired(self._hash_of_key, self._key_of_hash, key, found[:8])
        whole = packed_prompt_hash(packed, self._root)
        kept = _paired(self._hash_of_prompt, self._prompt_of_hash, prompt_key, whole)
        self.lost_prompts += not kept


def _paired(forth: dict[int, bytes], back: dict[bytes, int], key: int, found: bytes) -> bool:
    """Whether key and hash belong to each other and to no other, as far as seen."""
    return forth.setdefault(key, found) == found and back.setdefault(found, key) == key
