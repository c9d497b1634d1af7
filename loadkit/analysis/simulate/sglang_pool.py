"""SGLang's radix cache: nodes locked along the paths of running requests, whole idle leaves evicted.

The rules, from SGLang's source (`mem_cache/radix_cache.py`, `managers/schedule_policy.py`, `mem_cache/
common.py`); no SGLang server has been at hand, so they are checked against that reading alone, by a
second implementation in the tests that goes token by token:

- A prompt is matched page by page, all but its last token. The match touches every node on its path,
  and splits the one in which it ends: both halves count as touched.
- A request is admitted if the pages that it must compute, and one more, are free or evictable while
  the matched path is locked. What is lacking is evicted: the idle leaf that was touched longest ago
  goes whole, then perhaps its parent.
- The prompt's full pages enter the tree when the prefill is done, those of prompt and reply at the
  finish, without the last token sampled. What another request put there meanwhile is given back. Both
  touch the path. Until then nobody can hit them: twins in flight compute the same prompt twice.
- With no page for the next token the running request with the shortest reply is retracted (of equals
  the longest prompt): its pages outside the tree are free, and it starts again.

Not modelled: room that admission keeps for replies to come (a share of max_tokens that moves with the
load), chunks of a prefill that enter the tree before it ends, policies other than first come first
served, tiers in host memory.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from loadkit.analysis.simulate.host_cache import common_prefix
from loadkit.analysis.simulate.pools import NO_ROOM, WITHOUT_END, Chains
from loadkit.core.trace import IntArray

_EMPTY: IntArray = np.zeros(0, np.int64)
EXTRA_PAGES = 1  # that admission wants beside those of the prompt


@dataclass(slots=True, eq=False)
class _Node:
    """Pages `ids` behind the parent's; locks: running requests whose path it is on."""

    ids: IntArray
    parent: _Node | None
    last: int
    locks: int = 0
    children: dict[int, _Node] = field(default_factory=dict)  # by their first id


@dataclass(slots=True)
class _Held:
    """A running request. own: pages outside the tree; path: the last node of its locked path."""

    path: _Node
    num_in_tree: int
    own: int
    computed: bool = False


class SglangPool:
    """`capacity` pages, None: without end. A page is a block of the log."""

    preempted_first = False

    def __init__(self, chains: Chains, capacity: int | None):
        self._chains = chains
        self._capacity = WITHOUT_END if capacity is None else capacity
        self._num_free = self._capacity
        self._num_evictable = 0
        self._root = _Node(_EMPTY, None, 0, locks=1)
        self._ticks = itertools.count(1)
        self._leaves: list[tuple[int, int, _Node]] = []  # may be stale, see `_evict`
        self._order = itertools.count()
        self._held: dict[int, _Held] = {}

    def fits(self, row: int) -> bool:
        return self._chains.num_pages(row, self._chains.last_computed(row)) <= self._capacity

    def admit(self, row: int, num_sampled: int) -> int:
        """With the prompt, and what was said before a retraction."""
        chains = self._chains
        most = chains.may_hit[row] if not num_sampled else chains.num_full(row, num_sampled - 1)
        node, matched = self._match(chains.kept(row)[:most])
        self._lock(node)
        need = chains.num_pages(row, num_sampled) - matched
        room = self._num_free + self._num_evictable
        if (self._held and need + EXTRA_PAGES > room) or not self._take(need):
            self._unlock(node)
            return NO_ROOM
        self._held[row] = _Held(node, matched, need)
        return matched

    def sampled(self, row: int, num_sampled: int) -> bool:
        """The first token puts the prompt into the tree; each takes a page when it needs one."""
        held, last = self._held[row], self._chains.last_computed(row)
        if not held.computed and num_sampled <= last:
            self._insert_prompt(
                held, self._chains.kept(row)[: self._chains.num_full(row, num_sampled - 1)]
            )
            held.computed = True
        more = self._chains.num_pages(row, min(num_sampled, last)) - held.num_in_tree - held.own
        if more > 0 and not self._take(more):
            return False
        held.own += max(0, more)
        return True

    def victim(self, running: Sequence[int], num_sampled: Mapping[int, int]) -> int:
        """The shortest reply of those whose prompt is computed, of equals the longest prompt."""
        decoding = [row for row in running if self._held[row].computed] or list(running)
        tokens = self._chains.prompt_tokens
        return min(decoding, key=lambda row: (num_sampled.get(row, 0), -tokens[row]))

    def preempt(self, row: int, num_sampled: int) -> None:
        """Give up what is not in the tree."""
        held = self._held.pop(row)
        self._num_free += held.own
        self._unlock(held.path)

    def finish(self, row: int) -> None:
        """All full pages of prompt and reply enter the tree, and nothing stays locked."""
        held, chain = self._held.pop(row), self._chains.kept(row)
        known = self._insert(chain)  # twins' pages were there already
        unfinished = held.own - (len(chain) - held.num_in_tree)
        self._num_free += max(0, known - held.num_in_tree) + unfinished
        self._unlock(held.path)

    def _insert_prompt(self, held: _Held, chain: IntArray) -> None:
        known = self._insert(chain)
        self._num_free += max(0, known - held.num_in_tree)
        held.own -= len(chain) - held.num_in_tree
        held.num_in_tree = len(chain)
        node, _ = self._match(chain)
        self._unlock(held.path)
        self._lock(node)
        held.path = node

    # -- the tree

    def _match(self, chain: IntArray) -> tuple[_Node, int]:
        """The node in which the longest known beginning of the chain ends, and its length."""
        node, place, tick = self._root, 0, next(self._ticks)
        while place < len(chain) and (child := node.children.get(int(chain[place]))) is not None:
            child.last = tick
            shared = common_prefix(child.ids, chain[place:])
            node = child if shared == len(child.ids) else self._split(child, shared)
            place += shared
            if node is not child:
                break
        return node, place

    def _insert(self, chain: IntArray) -> int:
        """Put the chain into the tree; returns how many of its pages were there."""
        node, place = self._match(chain)
        if place < len(chain):
            leaf = _Node(chain[place:], node, next(self._ticks))
            node.children[int(chain[place])] = leaf
            self._num_evictable += len(leaf.ids)
            self._offer(leaf)
        return place

    def _split(self, child: _Node, length: int) -> _Node:
        """Cut the child in two; returns the upper part."""
        assert child.parent is not None
        upper = _Node(child.ids[:length], child.parent, next(self._ticks), child.locks)
        child.parent.children[int(child.ids[0])] = upper
        child.parent, child.ids = upper, child.ids[length:]
        upper.children[int(child.ids[0])] = child
        return upper

    # -- locks and eviction

    def _lock(self, node: _Node | None) -> None:
        while node is not None and node.parent is not None:
            if not node.locks:
                self._num_evictable -= len(node.ids)
            node.locks += 1
            node = node.parent

    def _unlock(self, node: _Node | None) -> None:
        while node is not None and node.parent is not None:
            node.locks -= 1
            if not node.locks:
                self._num_evictable += len(node.ids)
                self._offer(node)
            node = node.parent

    def _offer(self, node: _Node) -> None:
        if not node.locks and not node.children:
            heapq.heappush(self._leaves, (node.last, next(self._order), node))

    def _take(self, num_pages: int) -> bool:
        """Pages for the caller, evicting what is lacking. False, and nothing done: there are none."""
        if num_pages > self._num_free + self._num_evictable:
            return False
        while self._num_free < num_pages:
            self._evict()
        self._num_free -= num_pages
        return True

    def _evict(self) -> None:
        """The idle leaf touched longest ago goes. Each idle leaf has an entry, maybe too old a one."""
        while True:
            last, _, leaf = heapq.heappop(self._leaves)
            if leaf.parent is None or leaf.locks or leaf.children:
                continue
            if leaf.last != last:
                self._offer(leaf)
                continue
            break
        parent = leaf.parent
        del parent.children[int(leaf.ids[0])]
        leaf.parent = None
        self._num_free += len(leaf.ids)
        self._num_evictable -= len(leaf.ids)
        self._offer(parent)
