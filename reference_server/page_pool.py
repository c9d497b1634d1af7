"""The device's pages by number: which are free, and how many there are of each other kind."""

from __future__ import annotations

from collections.abc import Sequence

from reference_server.node import Node
from reference_server.tenants import Quotas

SCRATCH_PAGE = 0


class PagePool:
    """`num_blocks` pages that fill the capacity, `num_working` beside them, and the scratch page.

    See block_tree for the kinds. A tenant's quota is over its resident, dead and reserved pages.
    """

    def __init__(self, num_blocks: int, num_working: int, tenant_quota: int | None = None):
        self.num_blocks = num_blocks
        self.num_pages = num_blocks + num_working + 1
        self.quotas = Quotas(tenant_quota)
        self.num_resident = self.num_dead = self.num_reserved = self.num_pinned = 0
        self._free = list(range(self.num_pages - 1, SCRATCH_PAGE, -1))

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_counted(self) -> int:
        """Pages that fill the capacity: resident, dead and reserved."""
        return self.num_resident + self.num_dead + self.num_reserved

    @property
    def num_used(self) -> int:
        """Pages that running requests hold: pinned and reserved."""
        return self.num_pinned + self.num_reserved

    def fits(self, matched: Sequence[Node], num_reserve: int) -> bool:
        """Whether pinning `matched` leaves room to reserve `num_reserve` pages."""
        idle = sum(node.ref == 0 for node in matched)
        return self.num_used + idle + num_reserve <= self.num_blocks

    def quota_allows(self, matched: Sequence[Node], num_reserve: int, tenant: bytes) -> bool:
        """Whether the tenant's running requests may hold that much more."""
        own = sum(node.ref == 0 and node.tenant == tenant for node in matched)
        return self.quotas.allows(tenant, own + num_reserve)

    def take(self) -> int:
        return self._free.pop()

    def give(self, page: int) -> None:
        self._free.append(page)

    def reserved(self, tenant: bytes, num: int) -> None:
        self.num_reserved += num
        self.quotas.count(tenant, num)
        self.quotas.use(tenant, num)

    def filled(self, node: Node, num: int) -> None:
        """A page became (1) or was (-1) the node's, resident or dead."""
        self.quotas.count(node.tenant, num)
        if node.hash is None:
            self.num_dead += num
        else:
            self.num_resident += num

    def pin(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            if node.ref == 0:
                self.num_pinned += 1
                self.quotas.use(node.tenant, 1)
            node.ref += 1

    def unpin(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            node.ref -= 1
            if node.ref == 0:
                self.num_pinned -= 1
                self.quotas.use(node.tenant, -1)
