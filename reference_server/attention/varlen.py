"""Paged attention by torch's `varlen_attn` with block tables. Never run so far: it needs a GPU.

torch itself ships FlashAttention 2, which reads no block tables. FlashAttention 3 (Hopper) and 4
(Blackwell) do: packages of their own, `flash_attn_interface` and `flash_attn`, which torch takes
for its own kernels once they are activated.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reference_server.attention.base import Row

IMPLEMENTATIONS = {9: "FA3", 10: "FA4"}  # by the major number of the compute capability


class VarlenBackend:
    """bf16 or fp16. One split, so that a sequence's result does not depend on what else is in the
    batch. `max_q` and `max_k` only size the launch: the tensors say what is read."""

    name = "varlen"

    def __init__(self, block_size: int):
        from torch.nn.attention.varlen import varlen_attn

        if "block_table" not in inspect.signature(varlen_attn).parameters:
            raise RuntimeError("this torch's varlen_attn has no block tables")
        self.block_size = block_size
        self._attend: Any = varlen_attn

    def prepare(self, rows: Sequence[Row], device: torch.device) -> dict[str, Any]:
        widest = max(len(row.pages) for row in rows)
        table = [row.pages + [0] * (widest - len(row.pages)) for row in rows]

        def ints(values: Sequence[Any]) -> Tensor:
            return torch.tensor(values, dtype=torch.int32, device=device)

        return {
            "cu_seq_q": ints([row.begin for row in rows] + [rows[-1].end]),
            "max_q": max(row.num_new for row in rows),
            "max_k": max(row.context for row in rows),
            "seqused_k": ints([row.context for row in rows]),
            "block_table": ints(table),
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
            window_size=(-1, 0),  # causal, aligned to the last key
            enable_gqa=True,
            seqused_k=state["seqused_k"],
            block_table=state["block_table"],
            num_splits=1,
        )
        assert isinstance(attended, Tensor)
        return attended


def activate(device: torch.device) -> None:
    """Have this process's FlashAttention read block tables. RuntimeError or ImportError if there is
    none for this device, or its package is not installed."""
    from torch.nn.attention import activate_flash_attention_impl

    major, minor = torch.cuda.get_device_capability(device)
    if major not in IMPLEMENTATIONS:
        raise RuntimeError(f"no FlashAttention reads block tables on capability {major}.{minor}")
    activate_flash_attention_impl(IMPLEMENTATIONS[major])


def deactivate() -> None:
    """Back to torch's own kernels."""
    from torch.nn.attention import current_flash_attention_impl, restore_flash_attention_impl

    if current_flash_attention_impl() is not None:
        restore_flash_attention_impl()
