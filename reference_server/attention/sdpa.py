"""Paged attention in plain PyTorch: gathers each sequence's K/V by slot. Runs anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_server.attention.base import Row


@dataclass(slots=True)
class _Decodes:
    """Sequences with one new token each, padded to the longest context."""

    rows: Tensor  # (num,) rows of the flat batch
    slots: Tensor  # (num, longest)
    mask: Tensor | None  # (num, 1, 1, longest); None: all equally long


@dataclass(slots=True)
class _Prefill:
    begin: int
    end: int
    slots: Tensor  # (context,)
    mask: Tensor | None  # (new, context); None: a whole prompt, plain causal


@dataclass(slots=True)
class _State:
    decodes: _Decodes | None
    prefills: list[_Prefill]


class SdpaBackend:
    """All single tokens in one call, every longer chunk in a call of its own."""

    name = "sdpa"

    def prepare(self, rows: Sequence[Row], device: torch.device) -> _State:
        singles = [row for row in rows if row.num_new == 1]
        return _State(
            _decodes(singles, device) if singles else None,
            [_prefill(row, device) for row in rows if row.num_new > 1],
        )

    def attend(
        self, query: Tensor, pool: tuple[Tensor, Tensor], scaling: float, state: _State
    ) -> Tensor:
        out = torch.empty_like(query)
        if state.decodes is not None:
            out[state.decodes.rows] = _attend_singles(query, pool, scaling, state.decodes)
        for chunk in state.prefills:
            attended = F.scaled_dot_product_attention(
                query[chunk.begin : chunk.end].transpose(0, 1)[None],
                pool[0].index_select(0, chunk.slots).transpose(0, 1)[None],
                pool[1].index_select(0, chunk.slots).transpose(0, 1)[None],
                attn_mask=chunk.mask,
                is_causal=chunk.mask is None,
                scale=scaling,
                enable_gqa=True,
            )
            out[chunk.begin : chunk.end] = attended[0].transpose(0, 1)
        return out


def _decodes(rows: Sequence[Row], device: torch.device) -> _Decodes:
    slots = torch.nn.utils.rnn.pad_sequence([row.slots for row in rows], batch_first=True)
    lengths = torch.tensor([row.context for row in rows])
    mask = None
    if len({row.context for row in rows}) > 1:
        mask = (torch.arange(slots.shape[1])[None] < lengths[:, None])[:, None, None].to(device)
    begins = torch.tensor([row.begin for row in rows], device=device)
    return _Decodes(begins, slots.to(device), mask)


def _prefill(row: Row, device: torch.device) -> _Prefill:
    """The new tokens are the context's last: the mask is aligned to its lower right corner."""
    mask = None
    if row.num_new < row.context:
        places = torch.arange(row.context, device=device)
        mask = places[None] <= places[row.context - row.num_new :, None]
    return _Prefill(row.begin, row.end, row.slots.to(device), mask)


def _attend_singles(
    query: Tensor, pool: tuple[Tensor, Tensor], scaling: float, decodes: _Decodes
) -> Tensor:
    """One query each: the heads that share a K/V head become its queries (no copies of K/V)."""
    num, longest = decodes.slots.shape
    heads, dim = query.shape[1:]
    kv_heads = pool[0].shape[1]
    flat = decodes.slots.view(-1)
    keys, values = (
        part.index_select(0, flat).view(num, longest, kv_heads, dim).transpose(1, 2)
        for part in pool
    )
    grouped = query[decodes.rows].reshape(num, kv_heads, heads // kv_heads, dim)
    out = F.scaled_dot_product_attention(
        grouped, keys, values, attn_mask=decodes.mask, scale=scaling
    )
    return out.reshape(num, heads, dim)
