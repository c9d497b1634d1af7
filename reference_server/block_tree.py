"""Which page holds which block: a tree of chained block hashes over a pool of K/V pages.

A page is in exactly one of these states, and only the counted ones fill the capacity:

    free       nothing in it
    resident   a full block under its hash; pinned while `ref` > 0                    counted
    dead       what an unfinished last block leaves: can never hit, evicted like any  counted
    reserved   promised to a full prompt block that is not computed yet               counted
    working    the unfinished last block of a running request
    scratch    page 0: takes the K/V of tokens whose block is resident already

Working pages are extra (one a running request), so that a reply which repeats resident blocks
evicts nobody on its way: the block is recognised when it is full, and only a new one needs room.
For requests one after another the tree therefore equals a stack LRU at every capacity, in which a
finished request touches, tail first, its dead page and then its full blocks from last to first.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence

from reference_server.bounded import BoundedSet
from reference_server.policies import LRU, Policy

SCRATCH_PAGE = 0
MAX_GHOSTS = 1_000_000


class Node:
    """One resident block, or (hash None) one dead page. `last` is the tick of its last touch."""

    __slots__ = ("hash", "last", "num_children", "page", "parent", "ref")

    def __init__(self, block_hash: bytes | None, parent: Node | None, page: int):
        self.hash, self.parent, self.page = block_hash, parent, page
        self.ref = self.num_children = self.last = 0


class BlockTree:
    """Capacity `num_blocks` pages, plus `num_working` pages and the scratch page beside them."""

    def __init__(
        self,
        num_blocks: int,
        num_working: int,
        policy: Policy | None = None,
        max_ghosts: int = MAX_GHOSTS,
    ):
        self.num_blocks = num_blocks
        self.num_pages = num_blocks + num_working + 1
        self.policy = policy or LRU()
        self.nodes: dict[bytes, Node] = {}
        self.ghosts: BoundedSet[bytes] = BoundedSet(max_ghosts)
        self.num_dead = self.num_reserved = self.num_pinned = 0
        self._free = list(range(self.num_pages - 1, SCRATCH_PAGE, -1))
        self._leaves: list[tuple[float, int, Node]] = []
        self._ticks = itertools.count(1)
        self._clock = 0.0

    # -- reading

    @property
    def num_free_pages(self) -> int:
        return len(self._free)

    @property
    def num_counted(self) -> int:
        """Pages that fill the capacity: resident, dead and reserved."""
        return len(self.nodes) + self.num_dead + self.num_reserved

    @property
    def num_used(self) -> int:
        """Pages that running requests hold: pinned and reserved."""
        return self.num_pinned + self.num_reserved

    def match(self, hashes: Sequence[bytes]) -> list[Node]:
        """Nodes of the longest resident prefix of a chain. Touches nothing."""
        matched = []
        for block_hash in hashes:
            node = self.nodes.get(block_hash)
            if node is None:
                break
            matched.append(node)
        return matched

    def num_evicted(self, hashes: Sequence[bytes]) -> int:
        """How many blocks from the start of `hashes` were resident once and were evicted."""
        return sum(1 for _ in itertools.takewhile(self.ghosts.__contains__, hashes))

    def can_admit(self, matched: Sequence[Node], num_reserve: int) -> bool:
        """Whether pinning `matched` leaves room to reserve `num_reserve` pages."""
        newly_pinned = sum(1 for node in matched if node.ref == 0)
        return self.num_used + newly_pinned + num_reserve <= self.num_blocks

    # -- taking

    def pin(self, nodes: Sequence[Node]) -> None:
        """Keep these blocks until `release`; they must be a prefix of one chain."""
        for node in nodes:
            self.num_pinned += node.ref == 0
            node.ref += 1

    def reserve(self, num: int) -> list[int]:
        """Pages for full prompt blocks to come. Ask `can_admit` before."""
        for _ in range(num):
            if not self._make_room():
                raise RuntimeError("reserve without room")
            self.num_reserved += 1
        return [self._free.pop() for _ in range(num)]

    def take_working(self) -> int:
        """A page for an unfinished last block; at most one a running request."""
        return self._free.pop()

    def publish(
        self, block_hash: bytes, parent: Node | None, page: int, *, reserved: bool
    ) -> Node | None:
        """A page is full: make it findable, pinned for the caller.

        If the block is resident already, that node is returned and the caller's page is free again.
        None: there is no room, as running requests use every page; nothing was changed.
        """
        node = self.nodes.get(block_hash)
        if node is not None:
            self.give_back(page, reserved=reserved)
            self.pin((node,))
            return node
        if not reserved and not self._make_room():
            return None
        self.num_reserved -= reserved
        node = self.nodes[block_hash] = Node(block_hash, parent, page)
        if parent is not None:
            parent.num_children += 1
        self.ghosts.discard(block_hash)
        self.pin((node,))
        return node

    # -- giving back

    def give_back(self, page: int, *, reserved: bool) -> None:
        """A page whose content nobody needs is free again."""
        self.num_reserved -= reserved
        self._free.append(page)

    def retire(self, page: int, *, reserved: bool) -> None:
        """The page of an unfinished block becomes dead: it stays in LRU order until evicted.

        Call it before `release` of the same request's blocks, which must become more recent.
        """
        if not reserved and not self._make_room():
            self._free.append(page)  # everything else is in use: the dead page goes itself
            return
        self.num_reserved -= reserved
        self.num_dead += 1
        node = Node(None, None, page)
        node.last = next(self._ticks)
        self._offer(node)

    def release(self, nodes: Sequence[Node]) -> None:
        """Unpin a request's chain and touch it, tail first, so that a parent outlives its child."""
        for node in reversed(nodes):
            node.last = next(self._ticks)
            node.ref -= 1
            if node.ref == 0:
                self.num_pinned -= 1
                if node.num_children == 0:
                    self._offer(node)

    def clear(self) -> None:
        """Drop every idle block, dead page and ghost. Only when no request runs."""
        if self.num_used:
            raise RuntimeError("clear while requests run")
        while self._evict():
            pass
        self.ghosts.clear()

    # -- evicting

    def _make_room(self) -> bool:
        """Room for one more counted page; free pages are used before anything is evicted."""
        return self.num_counted < self.num_blocks or self._evict()

    def _offer(self, leaf: Node) -> None:
        """An idle leaf may be evicted. Stale entries are skipped later and swept when many."""
        heapq.heappush(self._leaves, (self.policy.score(leaf, self._clock), leaf.last, leaf))
        if len(self._leaves) > 2 * self.num_blocks + 64:
            self._leaves = [entry for entry in self._leaves if _is_current(entry)]
            heapq.heapify(self._leaves)

    def _evict(self) -> bool:
        """Free the page of the idle leaf with the lowest score; False if all are in use."""
        while self._leaves:
            entry = heapq.heappop(self._leaves)
            if _is_current(entry):
                self._clock = entry[0]
                self._drop(entry[2])
                return True
        return False

    def _drop(self, leaf: Node) -> None:
        self._free.append(leaf.page)
        leaf.page = -1
        if leaf.hash is None:
            self.num_dead -= 1
            return
        del self.nodes[leaf.hash]
        self.ghosts.add(leaf.hash)
        parent = leaf.parent
        if parent is not None:
            parent.num_children -= 1
            if parent.ref == 0 and parent.num_children == 0:
                self._offer(parent)


def _is_current(entry: tuple[float, int, Node]) -> bool:
    _, tick, node = entry
    return node.page >= 0 and node.ref == 0 and node.num_children == 0 and node.last == tick
