"""Blocks in host memory; pinned where the device is CUDA, so that copies need not wait."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from loadkit.core.errors import InputError
from reference_server.node import Node


class HostSlab:
    """One tensor of `num_slots` payloads. InputError if there is no memory for it; torch rounds
    pinned memory up to a power of two.

    A slot may be given away while a copy out of it is under way: whatever is put there next comes
    from the device by the same stream, so it waits for that copy.
    """

    def __init__(self, num_slots: int, shape: tuple[int, ...], dtype: torch.dtype, *, pinned: bool):
        self.num_slots = num_slots
        try:
            self._slots = torch.empty((num_slots, *shape), dtype=dtype, pin_memory=pinned)
        except RuntimeError as error:
            raise InputError(
                f"no memory for {num_slots} blocks", where="--host-blocks", remedy="take fewer"
            ) from error

    def put(self, slot: int, node: Node, payload: Any) -> bool:
        """An unfinished page takes its place, but nobody will ask for its content."""
        if node.hash is not None:
            self._slots[slot].copy_(payload)
        return True

    def get(self, slot: int, node: Node) -> Tensor:
        return self._slots[slot]

    def prefetch(self, slot: int, node: Node) -> None:
        """Memory is near enough."""

    def found(self) -> list[Node]:
        return []
