"""Engine rules by name: how much of a prompt may hit, and what a request leaves in the cache.

- vllm: full blocks; the last token is always computed, so at most floor((n - 1) / B) blocks hit. An
  unfinished last block occupies a page of the LRU queue. Models with states or windows hit only
  where those are kept (`kept`, if the trace says so).
- sglang: a radix tree whose match is cut to whole pages (page size = block size, 1 unless the
  server is started with --page-size); a fully cached prompt computes its last token, hence with
  pages of one token n - 1 tokens hit. Unfinished pages are freed.
- reference: loadkit's own server, full blocks as vLLM.
- llamacpp: N slots that hold one sequence each (`simulate.slots`); n - 1 tokens may hit.
- none: ids as given: every id hits that was seen before, the partial last block of a prompt too.
  Replies are left out.

The exact pass keeps all of them as one LRU queue in which blocks are placed on arrival. What the
engines' own pools do otherwise, in order of finishing and with requests that overlap, is in
`simulate.engine_pools`.

Token granularity needs the trace in blocks of one token (`block_size` 1), which takes about 250
bytes a distinct token while reading: fine up to some ten million tokens. Coarser blocks round the
matched length down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from loadkit.analysis.kept import hits_where_kept
from loadkit.core.csr import depths, pointers
from loadkit.core.errors import InputError
from loadkit.core.trace import IntArray, Trace

ENGINES = ("vllm", "sglang", "reference", "llamacpp", "none")
TOKEN_GRANULAR = ("sglang", "llamacpp")


def check_engine(engine: str) -> None:
    """InputError for a name that is no engine rule."""
    if engine not in ENGINES:
        raise InputError(
            f"unknown engine {engine!r}", where="--engine", remedy=f"one of {', '.join(ENGINES)}"
        )


def max_hit_blocks(trace: Trace, engine: str) -> IntArray:
    """The most leading ids (n,) of each prompt that may hit; see the module for the rules."""
    given: IntArray = np.diff(trace.block_ptr)
    if engine == "none":
        return given
    rule: IntArray = np.maximum(trace.prompt_tokens - 1, 0) // trace.block_size
    most = np.minimum(rule, given)
    return hits_where_kept(trace, most) if engine == "vllm" and trace.kept_blocks else most


def hit_tokens(blocks: IntArray, prompt_tokens: IntArray, block_size: int) -> IntArray:
    """Tokens (n,) of each prompt's leading `blocks` (n,): the one definition of hit tokens.

    Full blocks have `block_size` tokens, and the partial last one what the prompt has left. So a
    prompt whose whole chain hits has `prompt_tokens` hit tokens, never more.
    """
    return np.minimum(blocks * block_size, prompt_tokens)


def as_cached(trace: Trace, engine: str) -> Trace:
    """The trace as that engine keeps it: without unfinished pages, or without replies."""
    check_engine(engine)
    if engine == "none":
        return replace(trace, resident_ptr=None, resident_ids=None, partial_page=None)
    if engine in TOKEN_GRANULAR and trace.partial_page is not None:
        return replace(trace, partial_page=np.zeros(trace.num_requests, np.bool_))
    return trace


def in_pages(trace: Trace, page_size: int) -> Trace:
    """The trace in pages of `page_size` tokens, a multiple of its blocks.

    A page's id is that of its last block, since ids are chained. Partial pages have no id. Raises
    InputError if the pages are finer than the log's blocks or cut through them.
    """
    step, rest = divmod(page_size, trace.block_size)
    if rest or step < 1:
        raise InputError(
            f"pages of {page_size} tokens cannot be made from blocks of {trace.block_size}",
            where="--page-size",
            remedy=f"give a multiple of {trace.block_size}, or a log of tokens or text",
        )
    pages = np.minimum(trace.prompt_tokens // page_size, np.diff(trace.block_ptr) // step)
    ptr, ids = _every(trace.block_ptr, trace.block_ids, pages, step)
    kept: tuple[IntArray, IntArray] | None = None
    if trace.resident_ptr is not None and trace.resident_ids is not None:
        kept_pages = np.diff(trace.resident_ptr) // step
        kept = _every(trace.resident_ptr, trace.resident_ids, kept_pages, step)
    dense = _dense([ids, *([kept[1]] if kept else [])])
    return replace(
        trace,
        block_size=page_size,
        block_ptr=ptr,
        block_ids=dense[0],
        resident_ptr=kept[0] if kept else None,
        resident_ids=dense[1] if kept else None,
        partial_page=None,
        block_hashes=None,
    )


def _every(ptr: IntArray, ids: IntArray, counts: IntArray, step: int) -> tuple[IntArray, IntArray]:
    """Every step-th id of each chain, `counts` of them."""
    last = np.repeat(ptr[:-1], counts) + (depths(counts) + 1) * step - 1
    return pointers(counts), ids[last]


def _dense(arrays: Sequence[IntArray]) -> list[IntArray]:
    """The same ids counted from 0, equal ids equal across the arrays."""
    joined = np.unique(np.concatenate(arrays), return_inverse=True)[1].reshape(-1)
    ends = np.cumsum([len(array) for array in arrays])[:-1]
    return [part.astype(np.int64) for part in np.split(joined, ends)]
