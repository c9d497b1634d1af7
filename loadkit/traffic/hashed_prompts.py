"""Token ids in the place of hashes: a log without text becomes prompts that share as it says.

Equal block ids become equal tokens, different ones different tokens, the unfinished last block of
a prompt is drawn from the whole prompt's identity: identical prompts stay identical.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from loadkit.core.mixing import mixed
from loadkit.core.trace import Trace

# Ids below are bytes and special tokens in most vocabularies.
FIRST_TOKEN_ID = 1000


def token_prompts(trace: Trace, vocab_size: int, seed: int) -> Iterator[tuple[int, ...]]:
    """Token ids of each request of a log of hashes, in the trace's order."""
    size, first = trace.block_size, min(FIRST_TOKEN_ID, vocab_size // 2)
    for row in range(trace.num_requests):
        blocks = trace.block_ids[trace.block_ptr[row] : trace.block_ptr[row + 1]]
        num_tokens = int(trace.prompt_tokens[row])
        told = min(num_tokens, len(blocks) * size)
        # Keys of tails are negative, so that they never meet those of blocks.
        tail = np.full(num_tokens - told, -1 - int(trace.prompt_key[row]), np.int64)
        sources = np.concatenate([np.repeat(blocks, size)[:told], tail])
        bits = mixed(sources * size + np.arange(num_tokens) % size, seed) >> np.uint64(11)
        yield tuple((first + bits % np.uint64(vocab_size - first)).tolist())
