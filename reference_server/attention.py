"""Attention that reads K/V through page tables: the one device-dependent room.

A backend is chosen at start. `SdpaBackend` is plain PyTorch and runs anywhere; `VarlenBackend` is
FlashAttention over block tables as it ships with torch, CUDA only, and is taken only after a probe
shows that it agrees with `SdpaBackend` on this machine. Only the CPU path has been run so far.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

ATTENTION_NAME = "loadkit_paged"


@dataclass(slots=True)
class Row:
    """One sequence of a batch: its new tokens are rows begin..end of the flat batch.

    `slots` (context,) are the pool slots of tokens 0..context - 1, the new ones last; `write`
    (end - begin,) where the new ones' K/V goes: their own slots, or the scratch page's.
    """

    begin: int
    end: int
    slots: Tensor
    write: Tensor
    pages: list[int] = field(default_factory=list)

    @property
    def num_new(self) -> int:
        return self.end - self.begin

    @property
    def context(self) -> int:
        return len(self.slots)


class Backend(Protocol):
    """`prepare` builds once a step what `attend` uses in every layer.

    `attend(query, key, value, pool, scaling, state)`: query (T, heads, dim), key and value
    (T, kv heads, dim) of the new tokens, pool the layer's (keys, values), each
    (slots, kv heads, dim), already holding the new tokens. Returns (T, heads, dim).
    """

    name: str

    def prepare(self, rows: Sequence[Row]) -> Any: ...

    def attend(
        self, query: Tensor, pool: tuple[Tensor, Tensor], scaling: float, state: Any
    ) -> Tensor: ...


@dataclass(slots=True)
class Step:
    """One forward pass; travels through the model as an extra keyword argument."""

    backend: Backend
    pools: list[tuple[Tensor, Tensor]]
    write: Tensor
    state: Any


def _paged_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    paged_step: Step | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Store the new K/V in the pool, then attend. Shapes as transformers gives: (1, H, T, D)."""
    if paged_step is None:
        raise RuntimeError("paged attention outside the model runner")
    pool = paged_step.pools[module.layer_idx]
    pool[0].index_copy_(0, paged_step.write, key[0].transpose(0, 1))
    pool[1].index_copy_(0, paged_step.write, value[0].transpose(0, 1))
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    out = paged_step.backend.attend(query[0].transpose(0, 1), pool, scale, paged_step.state)
    return out[None], None


AttentionInterface.register(ATTENTION_NAME, _paged_attention)


@dataclass(slots=True)
class _SdpaState:
    decode_rows: Tensor | None  # (num_decode,) rows of the flat batch
    decode_slots: Tensor | None  # (num_decode, longest context)
    decode_mask: Tensor | None  # (num_decode, 1, 1, longest context); None: all equally long
    prefills: list[tuple[int, int, Tensor, Tensor | None]]  # begin, end, slots, mask


class SdpaBackend:
    """Gathers each sequence's K/V by slot; single-token rows are padded into one call."""

    name = "sdpa"

    def prepare(self, rows: Sequence[Row]) -> _SdpaState:
        decodes = [row for row in rows if row.num_new == 1]
        state = _SdpaState(None, None, None, [])
        if decodes:
            self._prepare_decodes(state, decodes)
        for row in rows:
            if row.num_new > 1:
                state.prefills.append((row.begin, row.end, row.slots, _causal_mask(row)))
        return state

    def _prepare_decodes(self, state: _SdpaState, rows: Sequence[Row]) -> None:
        device = rows[0].slots.device
        slots = torch.nn.utils.rnn.pad_sequence([row.slots for row in rows], batch_first=True)
        state.decode_rows = torch.tensor([row.begin for row in rows], device=device)
        state.decode_slots = slots
        lengths = torch.tensor([row.context for row in rows], device=device)
        if len({row.context for row in rows}) > 1:
            places = torch.arange(slots.shape[1], device=device)
            state.decode_mask = (places[None] < lengths[:, None])[:, None, None]

    def attend(
        self, query: Tensor, pool: tuple[Tensor, Tensor], scaling: float, state: _SdpaState
    ) -> Tensor:
        out = torch.empty_like(query)
        if state.decode_rows is not None:
            out[state.decode_rows] = self._decode(query, pool, scaling, state)
        for begin, end, slots, mask in state.prefills:
            attended = F.scaled_dot_product_attention(
                query[begin:end].transpose(0, 1)[None],
                pool[0].index_select(0, slots).transpose(0, 1)[None],
                pool[1].index_select(0, slots).transpose(0, 1)[None],
                attn_mask=mask,
                is_causal=mask is None,
                scale=scaling,
                enable_gqa=True,
            )
            out[begin:end] = attended[0].transpose(0, 1)
        return out

    def _decode(
        self, query: Tensor, pool: tuple[Tensor, Tensor], scaling: float, state: _SdpaState
    ) -> Tensor:
        """One query each: the heads that share a K/V head become its queries (no copies of K/V)."""
        assert state.decode_rows is not None
        assert state.decode_slots is not None
        num, longest = state.decode_slots.shape
        heads, dim = query.shape[1:]
        kv_heads = pool[0].shape[1]
        flat = state.decode_slots.view(-1)
        keys, values = (
            part.index_select(0, flat).view(num, longest, kv_heads, dim).transpose(1, 2)
            for part in pool
        )
        grouped = query[state.decode_rows].reshape(num, kv_heads, heads // kv_heads, dim)
        out = F.scaled_dot_product_attention(
            grouped, keys, values, attn_mask=state.decode_mask, scale=scaling
        )
        return out.reshape(num, heads, dim)


def _causal_mask(row: Row) -> Tensor | None:
    """(num_new, context) lower-right causal; None for a whole prompt (plain causal)."""
    if row.num_new == row.context:
        return None
    places = torch.arange(row.context, device=row.slots.device)
    return places[None] <= places[row.context - row.num_new :, None]


class VarlenBackend:
    """torch's own FlashAttention with block tables; one split, so that a sequence's result does
    not depend on what else is in the batch. CUDA, bf16 or fp16."""

    name = "varlen"

    def __init__(self, block_size: int):
        from torch.nn.attention.varlen import varlen_attn

        self.block_size = block_size
        self._attend = varlen_attn
        if "block_table" not in inspect.signature(varlen_attn).parameters:
            raise RuntimeError("this torch's varlen_attn has no block tables")

    def prepare(self, rows: Sequence[Row]) -> dict[str, Any]:
        device = rows[0].slots.device
        widest = max(len(row.pages) for row in rows)
        table = [row.pages + [0] * (widest - len(row.pages)) for row in rows]
        begins = [row.begin for row in rows] + [rows[-1].end]
        return {
            "cu_seq_q": torch.tensor(begins, dtype=torch.int32, device=device),
            "max_q": max(row.num_new for row in rows),
            "max_k": max(row.context for row in rows),
            "seqused_k": torch.tensor(
                [row.context for row in rows], dtype=torch.int32, device=device
            ),
            "block_table": torch.tensor(table, dtype=torch.int32, device=device),
        }

    def attend(
        self, query: Tensor, pool: tuple[Tensor, Tensor], scaling: float, state: dict[str, Any]
    ) -> Tensor:
        keys, values = (part.view(-1, self.block_size, *part.shape[1:]) for part in pool)
        attended = self._attend(
            query,
            keys,
            values,
            state["cu_seq_q"],
            None,
            state["max_q"],
            state["max_k"],
            scale=scaling,
            window_size=(-1, 0),
            enable_gqa=True,
            seqused_k=state["seqused_k"],
            block_table=state["block_table"],
            num_splits=1,
        )
        assert isinstance(attended, Tensor)
        return attended


def choose_backend(device: torch.device, dtype: torch.dtype, block_size: int) -> Backend:
    """The fastest backend that a probe shows to be right on this device; said on stderr."""
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        try:
            backend = VarlenBackend(block_size)
            if _agrees(backend, device, dtype, block_size):
                return backend
            problem = "its probe disagrees with SDPA"
        except (ImportError, RuntimeError, TypeError, ValueError) as error:
            problem = str(error).splitlines()[0]
        print(f"loadkit: varlen attention not used: {problem}", file=sys.stderr)
    return SdpaBackend()


@torch.inference_mode()
def _agrees(backend: Backend, device: torch.device, dtype: torch.dtype, block_size: int) -> bool:
    """Same output as SDPA on one prompt chunk and one decode over shuffled pages."""
    generator = torch.Generator(device).manual_seed(1)
    shape = (8 * block_size, 2, 64)
    keys, values, query = (
        torch.randn(size, generator=generator, device=device, dtype=dtype)
        for size in (shape, shape, (6, 4, 64))
    )
    slots = torch.arange(shape[0], device=device).view(8, block_size)
    rows = [
        Row(begin, end, slots[pages].flatten()[:context], slots[0][:0], pages)
        for begin, end, pages, context in (
            (0, 5, [3, 1, 6], 2 * block_size + 5),
            (5, 6, [2, 5], block_size + 1),
        )
    ]
    found, wanted = (
        b.attend(query, (keys, values), 0.125, b.prepare(rows)) for b in (backend, SdpaBackend())
    )
    return bool(torch.allclose(found.float(), wanted.float(), atol=2e-2, rtol=2e-2))
