"""Token ids in the place of hashes: a log without text becomes prompts that share as it says.

Equal block ids become equal tokens, different ones different tokens, the unfinished last block of
a prompt is drawn from the whole prompt's identity: identical prompts stay identical.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from loadkit.core.trace import IntArray, Trace

# splitmix64 (Steele, Lea, Flood, 2014): the usual constants.
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
# Ids below are bytes and special tokens in most vocabularies.
FIRST_TOKEN_ID = 1000


def token_prompts(trace: Trace, vocab_size: int, seed: int) -> Iterator[tuple[int, ...]]:
    """Token ids of each request of a log of hashes, in the trace's order."""
    size, first = trace.block_size, min(FIRST_TOKEN_ID, vocab_size // 2)
    word = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
    for row in range(trace.num_requests):
        blocks = trace.block_ids[trace.block_ptr[row] : trace.block_ptr[row + 1]]
        num_tokens = int(trace.prompt_tokens[row])
        told = min(num_tokens, len(blocks) * size)
        # Keys of tails are negative, so that they never meet those of blocks.
        tail = np.full(num_tokens - told, -1 - int(trace.prompt_key[row]), np.int64)
        sources = np.concatenate([np.repeat(blocks, size)[:told], tail])
        values = _mixed(sources, np.arange(num_tokens) % size, word)
        yield tuple((first + values % np.uint64(vocab_size - first)).tolist())


def _mixed(sources: IntArray, places: IntArray, word: int) -> npt.NDArray[np.uint64]:
    """64 random bits for each (source, place), the same ones every time."""
    return _finished(_finished(sources.astype(np.uint64), word) + places.astype(np.uint64), 0)


def _finished(state: npt.NDArray[np.uint64], word: int) -> npt.NDArray[np.uint64]:
    state = (state + np.uint64(1)) * np.uint64(_GOLDEN) + np.uint64(word)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(_MIX_1)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(_MIX_2)
    return state ^ (state >> np.uint64(31))
