"""One block, or one unfinished page, wherever it lies."""

from __future__ import annotations

GONE, DEVICE, HOST, DISK = -1, 0, 1, 2
TIER_NAMES = ("device", "host", "disk")


class Node:
    """A full block under its chained hash, or (hash None) the dead page of an unfinished one.

    parent_hash: hash of the block before it, or the chain's root. tokens: its token ids, as many as
    have K/V. place: page on the device, slot in another tier. last: tick of its last touch.
    ref and num_children count only on the device. See policies.base.Scored for the counts.
    """

    __slots__ = (
        "depth",
        "hash",
        "last",
        "num_children",
        "num_prompts",
        "num_uses",
        "parent",
        "parent_hash",
        "place",
        "ref",
        "score",
        "tenant",
        "tier",
        "tokens",
    )

    def __init__(
        self,
        block_hash: bytes | None,
        parent: Node | None,
        parent_hash: bytes,
        tokens: tuple[int, ...],
        place: int,
        tenant: bytes = b"",
        tier: int = DEVICE,
    ):
        self.hash, self.parent, self.parent_hash, self.tokens = (
            block_hash,
            parent,
            parent_hash,
            tokens,
        )
        self.place, self.tier, self.tenant = place, tier, tenant
        self.depth: int = parent.depth + 1 if parent else 0
        self.ref = self.num_children = self.last = 0
        self.num_uses = self.num_prompts = 1
        self.score = 0.0
