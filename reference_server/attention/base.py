"""How a model of transformers comes to read and write the paged pool, and what a backend promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface

ATTENTION_NAME = "loadkit_paged"


@dataclass(slots=True)
class Row:
    """One sequence of a batch: its new tokens are rows begin..end of the flat batch.

    `slots` (context,) are the pool slots of tokens 0..context - 1, the new ones last; `write`
    (end - begin,) where the new ones' K/V goes: their own slots, or the scratch page's. Both are
    in host memory: a backend takes to the device what it needs.
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

    `attend(query, pool, scaling, state)`: query (T, heads, dim) of the new tokens, pool the layer's
    (keys, values), each (slots, kv heads, dim), which hold the new tokens already. Each token sees
    its sequence up to itself. Returns (T, heads, dim).
    """

    name: str

    def prepare(self, rows: Sequence[Row], device: torch.device) -> Any: ...

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
