"""Engine rules by name, by eye: how much of a prompt may hit, and what stays in the cache."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadkit.analysis import analyze
from loadkit.analysis.curve import hit_curve
from loadkit.analysis.engines import in_pages
from loadkit.analysis.per_request import per_request_of
from loadkit.analysis.reuse import reuse_of
from loadkit.core.errors import InputError
from loadkit.core.trace import Trace
from loadkit.traces import TokenRequest, token_trace


def hit_tokens(engine: str, block_size: int, *prompts: list[int]) -> list[int]:
    trace = token_trace((TokenRequest(p, session=i) for i, p in enumerate(prompts)), block_size)
    return per_request_of(reuse_of(trace, engine), None).reusable_tokens.tolist()


def test_eight_tokens_again_hit_four_in_vllm_and_seven_in_sglang() -> None:
    prompt = [1, 2, 3, 4, 5, 6, 7, 8]
    assert hit_tokens("vllm", 4, prompt, prompt) == [0, 4]
    assert hit_tokens("sglang", 1, prompt, prompt) == [0, 7]
    assert hit_tokens("sglang", 4, prompt, prompt) == [0, 4]
    assert hit_tokens("llamacpp", 1, prompt, prompt) == [0, 7]
    assert hit_tokens("none", 4, prompt, prompt) == [0, 8]


def test_a_beginning_of_nine_tokens_hits_nine_in_pages_of_one_and_eight_in_pages_of_four() -> None:
    first, second = [*range(9), 50, 51], [*range(9), 60, 61, 62]
    assert hit_tokens("sglang", 1, first, second) == [0, 9]
    assert hit_tokens("sglang", 4, first, second) == [0, 8]


def test_sglang_frees_unfinished_pages() -> None:
    """Blocks of 2, room for 2: the started page of [3, 3, 3] pushes [1, 1] out of vLLM's queue."""
    sent = [TokenRequest(p, session=i) for i, p in enumerate([[1, 1], [3, 3, 3], [1, 1, 9]])]
    trace = token_trace(sent, 2)
    assert per_request_of(reuse_of(trace, "vllm"), 2).resident_tokens.tolist() == [0, 0, 0]
    assert per_request_of(reuse_of(trace, "sglang"), 2).resident_tokens.tolist() == [0, 0, 2]


def ids_with_partial_tails(*rows: tuple[int, list[int]]) -> Trace:
    """(prompt tokens, ids) in blocks of 4, an id for the partial last block as in Mooncake logs."""
    counts = [len(ids) for _, ids in rows]
    return Trace(
        block_size=4,
        prompt_tokens=np.array([tokens for tokens, _ in rows]),
        block_ptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        block_ids=np.array([block for _, ids in rows for block in ids]),
        prompt_key=np.arange(len(rows)),
        session=np.arange(len(rows)),
        num_sessions=len(rows),
        sessions_inferred=False,
        output_tokens=np.full(len(rows), -1),
    )


def test_ids_as_given_count_the_tokens_that_a_partial_last_block_has() -> None:
    trace = ids_with_partial_tails((10, [0, 1, 2]), (10, [0, 1, 2]))
    reuse = reuse_of(trace, "none")
    assert per_request_of(reuse, None).reusable_tokens.tolist() == [0, 10]
    assert hit_curve(reuse).split(None).hit == 10
    assert hit_curve(reuse).split(2).hit == 8
    assert analyze(trace, engine="none").infinite.hit_rate == 0.5


def test_ids_as_given_leave_replies_out() -> None:
    sent = [TokenRequest([1], reply=[2], session="a"), TokenRequest([1, 2, 3], session="a")]
    trace = token_trace(sent, 1)
    assert per_request_of(reuse_of(trace, "none"), None).reusable_tokens.tolist() == [0, 1]
    assert per_request_of(reuse_of(trace, "sglang"), None).reusable_tokens.tolist() == [0, 2]


tokens = st.lists(st.integers(0, 1), min_size=1, max_size=12)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(tokens, tokens), min_size=1, max_size=8), st.integers(2, 4))
def test_pages_made_from_blocks_equal_pages_made_from_tokens(
    served: list[tuple[list[int], list[int]]], page_size: int
) -> None:
    sent = [TokenRequest(p, reply=r, session=i) for i, (p, r) in enumerate(served)]
    fine, coarse = token_trace(sent, 1), token_trace(sent, page_size)
    for capacity in (1, 3, 8, None):
        made = per_request_of(reuse_of(in_pages(fine, page_size), "sglang"), capacity)
        expected = per_request_of(reuse_of(coarse, "sglang"), capacity)
        assert made.resident_tokens.tolist() == expected.resident_tokens.tolist()


def test_pages_finer_than_the_logs_blocks_are_refused() -> None:
    trace = token_trace([TokenRequest([1, 2, 3, 4])], 4)
    for page_size in (1, 2, 6):
        with pytest.raises(InputError, match="cannot be made from blocks of 4"):
            in_pages(trace, page_size)
