"""Both attention backends against attention written out per query, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from reference_server.attention import Backend, Row, SdpaBackend, VarlenBackend, choose_backend

BLOCK, HEADS, KV_HEADS, DIM, SCALE = 4, 4, 2, 8, 0.3


def attend_one(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One query token (heads, dim) over all given keys (n, kv heads, dim)."""
    out = []
    for head in range(HEADS):
        kv = head * KV_HEADS // HEADS
        weights = torch.softmax(keys[:, kv].double() @ query[head].double() * SCALE, 0)
        out.append(weights @ values[:, kv].double())
    return torch.stack(out)


def naive_varlen(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: None,
    max_q: int,
    max_k: int,
    *,
    seqused_k: Tensor,
    block_table: Tensor,
    window_size: tuple[int, int],
    **options: Any,
) -> Tensor:
    """torch's varlen_attn as its documentation says: paged, causal aligned to the last key."""
    assert window_size == (-1, 0)
    assert (int(seqused_k.max()), int(cu_seq_q.diff().max())) == (max_k, max_q)
    out = torch.empty_like(query)
    for row, used in enumerate(seqused_k.tolist()):
        k, v = (part[block_table[row].long()].flatten(0, 1)[:used] for part in (keys, values))
        begin, end = cu_seq_q[row : row + 2].tolist()
        for i in range(begin, end):
            seen = used - (end - 1 - i)
            out[i] = attend_one(query[i], k[:seen], v[:seen]).float()
    return out


@pytest.fixture(params=["sdpa", "varlen"])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "sdpa":
        return SdpaBackend()
    made = VarlenBackend(BLOCK)
    made._attend = naive_varlen  # the real one needs CUDA: what it is given is tested here
    return made


def test_prompts_chunks_and_decodes_in_one_batch_over_scattered_pages(backend: Backend) -> None:
    """A whole prompt of 6, two decodes at 9 and 3, and the last 5 tokens of a prompt of 12."""
    generator = torch.Generator().manual_seed(4)
    pool = torch.randn(2, 12 * BLOCK, KV_HEADS, DIM, generator=generator)
    query = torch.randn(13, HEADS, DIM, generator=generator)
    plan = [(6, [3, 7], 6), (1, [11, 2, 5], 9), (5, [1, 9, 4], 12), (1, [8], 3)]
    slots = torch.arange(12 * BLOCK).view(12, BLOCK)
    rows, begin = [], 0
    for new, pages, context in plan:
        own = slots[pages].flatten()[:context]
        rows.append(Row(begin, begin + new, own, own[-new:], pages))
        begin += new
    out = backend.attend(query, (pool[0], pool[1]), SCALE, backend.prepare(rows))
    for row in rows:
        for i in range(row.begin, row.end):
            seen = row.slots[: row.context - (row.end - 1 - i)]
            wanted = attend_one(query[i], pool[0][seen], pool[1][seen])
            assert torch.allclose(out[i].double(), wanted, atol=1e-5), (row, i)


def test_a_cpu_gets_plain_attention() -> None:
    assert choose_backend(torch.device("cpu"), torch.float32, BLOCK).name == "sdpa"
