"""What the tiers need from whoever holds K/V. A payload is one block's K/V, opaque to them."""

from __future__ import annotations

from typing import Any, Protocol

from reference_server.node import Node


class Pages(Protocol):
    """The device's pages. All calls come from the engine's thread, between forward passes."""

    def read(self, page: int) -> Any:
        """The page's payload: a view or a copy, to be used at once."""

    def write(self, page: int, payload: Any) -> None: ...

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """The first tokens' K/V of one page into another."""


class Slab(Protocol):
    """A fixed number of block-sized slots; `put` and `get` may fail, and never raise for it."""

    num_slots: int

    def put(self, slot: int, node: Node, payload: Any) -> bool:
        """Store a block. False: it could not be stored, and the slot holds nothing."""

    def get(self, slot: int, node: Node) -> Any | None:
        """The payload that was put there for this block, or None if it is damaged."""

    def prefetch(self, slot: int, node: Node) -> None:
        """A request that is queued will ask for this block."""

    def found(self) -> list[Node]:
        """Blocks that an earlier process left, oldest first; whole or not is seen at `get`."""
