"""The device's K/V pages as tensors.

All copies are put on the current stream, which is the model's: a page is read, and a slot of pinned
memory used again, only after what was put there before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from loadkit.core.errors import InputError


def head_shape(config: Any) -> tuple[int, int, int]:
    """(attention heads, K/V heads, head dim) of a model."""
    heads: int = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return heads, kv_heads, head_dim


class KVPool:
    """`num_pages` pages of `block_size` token slots for every layer, allocated at once.

    `layers` has (keys, values) a layer, each (num_pages x block_size, kv heads, head dim), views of
    one tensor. A page's payload is (layers, 2, block_size, kv heads, head dim). InputError if there
    is no memory for it.
    """

    def __init__(
        self, config: Any, num_pages: int, block_size: int, dtype: torch.dtype, device: torch.device
    ):
        _, heads, dim = head_shape(config)
        num_layers = config.num_hidden_layers
        self.block_size = block_size
        self.payload_shape = (num_layers, 2, block_size, heads, dim)
        try:
            self.tensor = torch.zeros(
                (num_layers, 2, num_pages, block_size, heads, dim), dtype=dtype, device=device
            )
        except RuntimeError as error:
            raise InputError(
                f"no memory for {num_pages * block_size} tokens of K/V",
                where="--num-blocks",
                remedy="take fewer",
            ) from error
        flat = self.tensor.view(num_layers, 2, num_pages * block_size, heads, dim)
        self.layers: list[tuple[Tensor, Tensor]] = [(layer[0], layer[1]) for layer in flat]

    # -- tiers.base.Pages

    def read(self, page: int) -> Tensor:
        return self.tensor[:, :, page]

    def write(self, page: int, payload: Any) -> None:
        self.tensor[:, :, page].copy_(payload, non_blocking=True)

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        self.tensor[:, :, target, :num_tokens] = self.tensor[:, :, source, :num_tokens]
