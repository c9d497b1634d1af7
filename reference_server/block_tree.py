"""Which page holds which block: a tree of chained block hashes over a pool of K/V pages.

A page is in exactly one of these states, and only the counted ones fill the capacity:

    free       nothing in it
    resident   a full block under its hash; pinned while `ref` > 0                    counted
    dead       what an unfinished last block leaves: no block can hit it, evicted as  counted
               any; its first tokens may be copied (see `kept_tail`)
    reserved   promised to a full prompt block that is not computed yet               counted
    working    the unfinished last block of a running request
    scratch    page 0: takes the K/V of tokens whose block is resident already

Working pages are extra (one a running request), so that a reply which repeats resident blocks
evicts nobody on its way: the block is recognised when it is full, and only a new one needs room.
For requests one after another the tree therefore equals a stack LRU at every capacity, in which a
finished request touches, tail first, its dead page and then its full blocks from last to first.
Other policies score blocks at the same touches; what a running request evicts for its reply raises
the clock only when a request has ended, as in the analyzer's simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from reference_server.directory import Directory
from reference_server.eviction import EvictionOrder
from reference_server.node import DEVICE, GONE, Node
from reference_server.page_pool import SCRATCH_PAGE, PagePool
from reference_server.policies import Policy
from reference_server.policies.lru import LRU
from reference_server.tiers import LowerTiers, Pages

__all__ = ["SCRATCH_PAGE", "Block", "BlockTree"]
MAX_GHOSTS = 1_000_000


class Block(NamedTuple):
    """What a page is to hold: hash None for an unfinished block."""

    hash: bytes | None
    parent: Node | None
    parent_hash: bytes
    tokens: tuple[int, ...]
    tenant: bytes = b""


class BlockTree:
    """Capacity `num_blocks` pages, plus `num_working` pages and the scratch page beside them.

    What is known by hash may be read from here as from the directory.
    """

    def __init__(
        self,
        num_blocks: int,
        num_working: int,
        policy: Policy | None = None,
        *,
        max_ghosts: int = MAX_GHOSTS,
        tenant_quota: int | None = None,
        lower: LowerTiers | None = None,
        pages: Pages | None = None,
    ):
        self.pool = PagePool(num_blocks, num_working, tenant_quota)
        by_tenant = tenant_quota is not None
        self.order = EvictionOrder(policy or LRU(num_blocks), num_blocks, by_tenant=by_tenant)
        self.known = known = Directory(max_ghosts)
        self.nodes, self.ghosts, self.events = known.nodes, known.ghosts, known.events
        self.match, self.num_evicted = known.match, known.num_evicted
        self.continuations = known.continuations
        self.lower = lower or LowerTiers()
        self.lower.gone, self.lower.came = known.forget, known.tell
        self.pages = pages  # None: nothing can be copied
        known.adopt(self.lower.found())

    def can_admit(self, matched: Sequence[Node], num_reserve: int, tenant: bytes = b"") -> bool:
        """Whether pinning `matched` leaves room to reserve `num_reserve` pages."""
        allowed = self.pool.quota_allows(matched, num_reserve, tenant)
        return allowed and self.pool.fits(matched, num_reserve)

    # -- taking

    def pin(self, nodes: Sequence[Node]) -> None:
        """Keep these blocks until `release`; they must be a prefix of one chain."""
        self.pool.pin(nodes)

    def promote(self, nodes: Sequence[Node]) -> int:
        """Bring pinned blocks of one chain to the device. Returns how many of them are there: one
        that was damaged is forgotten, and what is behind it is unpinned."""
        low = [node for node in nodes if node.tier != DEVICE]
        self.lower.leave(low)
        for index, node in enumerate(nodes):
            if node.tier == DEVICE:
                continue
            self._require_room(node.tenant)
            page = self.pool.take()
            if not self.lower.load(node, page):
                self.pool.give(page)
                self._give_up(nodes[index:])
                return index
            self._settle(node, nodes[index - 1] if index else None)
        return len(nodes)

    def reserve(self, num: int, tenant: bytes = b"") -> list[int]:
        """Pages for full prompt blocks to come. Ask `can_admit` before."""
        for _ in range(num):
            self._require_room(tenant)
            self.pool.reserved(tenant, 1)
        return [self.pool.take() for _ in range(num)]

    def take_working(self) -> int:
        """A page for an unfinished last block; at most one a running request."""
        return self.pool.take()

    def publish(self, block: Block, page: int, *, reserved: bool) -> tuple[Node, bool] | None:
        """A page is full: make it findable, pinned for the caller. (node, whether it was new).

        If the block is resident already, that node is returned and the caller's page is free again.
        None: there is no room, as running requests use every page; nothing was changed.
        """
        assert block.hash is not None
        node = self.nodes.get(block.hash)
        if node is not None and node.tier == DEVICE:
            self.give_back(page, reserved=reserved, tenant=block.tenant)
            self.pin((node,))
            return node, False
        if node is not None:
            self.lower.forget(node)  # a lower tier's copy makes room there first
        if not reserved and not self._make_room(block.tenant, settle_clock=False):
            if node is not None:
                self.known.forget(node)
            return None
        if reserved:
            self.pool.reserved(block.tenant, -1)
        is_new = node is None
        if node is None:
            node = Node(
                block.hash, block.parent, block.parent_hash, block.tokens, page, block.tenant
            )
        node.tier, node.place = DEVICE, page
        self._settle(node, block.parent)
        self.pin((node,))
        return node, is_new

    # -- giving back

    def give_back(self, page: int, *, reserved: bool, tenant: bytes = b"") -> None:
        """A page whose content nobody needs is free again."""
        if reserved:
            self.pool.reserved(tenant, -1)
        self.pool.give(page)

    def retire(self, block: Block, page: int, *, reserved: bool) -> None:
        """The page of an unfinished block becomes dead: it stays in LRU order until evicted.

        Call it before `release` of the same request's blocks, which must become more recent.
        """
        if reserved:
            self.pool.reserved(block.tenant, -1)
        elif not self._make_room(block.tenant, settle_clock=False):
            self.pool.give(page)  # everything else is in use: the dead page goes itself
            return
        node = Node(None, None, block.parent_hash, block.tokens, page, block.tenant)
        self.pool.filled(node, 1)
        self.continuations.touch(node)
        self.order.enter_dead(node)

    def release(self, nodes: Sequence[Node]) -> None:
        """Unpin a request's chain and touch it."""
        self.pool.unpin(nodes)
        self.order.touch(nodes)
        for node in reversed(nodes):
            self.continuations.touch(node)
            self.order.offer(node)
        self.order.settle()

    def clear(self) -> None:
        """Drop every idle block, dead page and ghost in all tiers. Only when no request runs."""
        if self.pool.num_used:
            raise RuntimeError("clear while requests run")
        self.lower.clear()
        while (leaf := self.order.pop()) is not None:
            self._leave_device(leaf)
            self.known.forget(leaf)
        self.known.clear()
        self.order.reset_clock()

    def drain(self) -> None:
        """The server stops: what is idle goes to the tier that outlives it, if there is one."""
        if self.lower.outlives_the_process:
            while self._evict(None, settle_clock=True):
                pass
            self.lower.drain()

    # -- evicting

    def _make_room(self, tenant: bytes, *, settle_clock: bool = True) -> bool:
        """Room for one more counted page; free pages are used before anything is evicted. A tenant
        at its quota makes room among its own, if it has any that is idle."""
        if self.pool.quotas.is_full(tenant) and self._evict(tenant, settle_clock):
            return True
        return self.pool.num_counted < self.pool.num_blocks or self._evict(None, settle_clock)

    def _require_room(self, tenant: bytes) -> None:
        if not self._make_room(tenant):
            raise RuntimeError("no room: ask can_admit before")

    def _evict(self, tenant: bytes | None, settle_clock: bool) -> bool:
        """The idle leaf with the lowest score leaves the device; False if all are in use."""
        leaf = self.order.pop(tenant, settle=settle_clock)
        if leaf is None:
            return False
        self._leave_device(leaf)
        self.lower.demote(leaf)
        return True

    # -- one node's changes

    def _settle(self, node: Node, parent: Node | None) -> None:
        """The node's page is resident from now on."""
        node.parent = parent
        node.depth = parent.depth + 1 if parent else 0
        if parent is not None:
            parent.num_children += 1
        self.pool.filled(node, 1)
        self.known.came(node)

    def _give_up(self, nodes: Sequence[Node]) -> None:
        """Nodes of a chain that left their tier and cannot be reached: the first one is damaged."""
        self.pool.unpin(nodes)
        for node in nodes:
            if node.tier != GONE:
                self.lower.forget(node)
                node.tier = GONE
                self.known.forget(node)

    def _leave_device(self, leaf: Node) -> None:
        self.pool.give(leaf.place)
        self.pool.filled(leaf, -1)
        if leaf.hash is None:
            return
        self.order.policy.evicted(leaf)
        parent, leaf.parent = leaf.parent, None
        if parent is not None:
            parent.num_children -= 1
            self.order.offer(parent)
