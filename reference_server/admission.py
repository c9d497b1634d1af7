"""Giving a request its pages: what the cache has, copies of kept tails, room for the rest."""

from __future__ import annotations

from collections.abc import Sequence

from loadkit.core.blocks import max_hit_blocks
from reference_server.accounting import History
from reference_server.block_tree import BlockTree
from reference_server.continuations import num_common
from reference_server.node import TIER_NAMES
from reference_server.request import Request


class Admission:
    """All or nothing: a request that is admitted can compute its whole prompt."""

    def __init__(self, tree: BlockTree, history: History, block_size: int):
        self.tree, self.history, self.block_size = tree, history, block_size

    def admit(self, request: Request) -> bool:
        """Pin what is resident, reserve the rest of the full blocks. False: no room now."""
        num_tokens, size = len(request.tokens), self.block_size
        num_full = num_tokens // size
        if num_full:
            request.block_hash(num_full - 1)  # a requeued request has reply blocks, too
        matched = self.tree.match(request.hashes[:num_full])
        if not self.tree.can_admit(matched, num_full - len(matched), request.tenant):
            return False
        tiers = [node.tier for node in matched]
        for node in matched:
            node.tenant = node.tenant or request.tenant  # an earlier process did not say whose
        self.tree.pin(matched)
        num_there = self.tree.promote(matched)
        if num_there < len(matched):  # a block was damaged: it is forgotten now
            self.tree.release(matched[:num_there])
            return self.admit(request)
        num_hit = min(len(matched), max_hit_blocks(num_tokens, size))
        is_first = request.split is None
        if is_first and request.leader is not None and request.leader.split is None:
            request.leader = None  # it ended before it began: this is the request now
        if is_first:
            self._account(request, tiers[:num_hit])
        if is_first and request.leader is None:
            self.tree.order.use(matched, is_new_prompt=request.is_new_prompt)
        self.tree.order.touch(matched)
        request.num_blocks_used = max(request.num_blocks_used, num_full)
        request.nodes = matched
        request.num_reserved_end, request.num_computed = num_full, num_hit * size
        self._give_pages(request)
        return True

    def waits_for_own(self, request: Request) -> bool:
        """Whether it is only the tenant's quota that keeps the request out."""
        num_full = len(request.tokens) // self.block_size
        matched = self.tree.match(request.hashes[:num_full])
        return not self.tree.pool.quota_allows(matched, num_full - len(matched), request.tenant)

    def _account(self, request: Request, tiers: Sequence[int]) -> None:
        """Once a request, before its own blocks evict anything; `tiers` of the blocks hit."""
        size = self.block_size
        device, host, disk = (tiers.count(t) * size for t in range(len(TIER_NAMES)))
        request.tier_tokens = (device, host, disk)
        if request.leader is not None:
            request.split = request.leader.split
            request.is_new_prompt = False
            return
        request.is_new_prompt = not self.history.is_replay(request)
        self.tree.order.policy.arrived(is_replay=not request.is_new_prompt)
        usable = request.hashes[: max_hit_blocks(request.num_prompt, size)]
        num_evicted = self.tree.num_evicted(usable[len(tiers) :])
        request.split = self.history.admit(
            request, num_cached=len(tiers) * size, num_evicted=num_evicted * size
        )

    def _give_pages(self, request: Request) -> None:
        """Pages for all blocks of the prompt. A kept tail is copied before room is made, which may
        evict it: into an extra page, that takes the place of the first of the others."""
        num_reserve = request.num_reserved_end - len(request.nodes)
        copy = self._copy_tail(request)
        pages = self.tree.reserve(num_reserve, request.tenant)
        if copy is not None and pages:
            self.tree.give_back(pages[0], reserved=False)
            pages[0] = copy
            copy = None
        if len(request.tokens) % self.block_size:
            pages.append(self.tree.take_working() if copy is None else copy)
        request.pages = [node.place for node in request.nodes] + pages

    def _copy_tail(self, request: Request) -> int | None:
        """A page with the K/V of what is known of the first block that missed; None: nothing is.

        The last token is never copied, as its logits are needed. If its block is resident, as all
        others are, it is computed alone into the scratch page, and nothing needs to be copied.
        """
        index, last = len(request.nodes), len(request.tokens) - 1
        if index * self.block_size > last:
            self._keep(request, last)
            return None
        wanted = request.tokens[index * self.block_size : last][: self.block_size]
        page, num = self._tail(request, index, wanted)
        if num == 0 or self.tree.pages is None:
            return None
        copy = self.tree.take_working()
        try:
            self.tree.pages.copy(page, copy, num)
        except RuntimeError:  # the tail is computed instead
            self.tree.give_back(copy, reserved=False)
            return None
        self._keep(request, index * self.block_size + num)
        return copy

    def _keep(self, request: Request, num_computed: int) -> None:
        if request.num_preemptions == 0:
            request.num_kept_tail = num_computed - request.num_computed
        request.num_computed = num_computed

    def _tail(self, request: Request, index: int, wanted: Sequence[int]) -> tuple[int, int]:
        """(page, how many of the wanted tokens it holds from its start)."""
        leader = request.leader
        if leader is not None and len(leader.nodes) <= index < len(leader.pages):
            held = leader.tokens[index * self.block_size : leader.num_computed]
            return leader.pages[index], num_common(held, wanted)
        return self.tree.continuations.kept_tail(request.prefix_hash(index), wanted)
