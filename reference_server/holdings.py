"""What running requests hold: filled blocks become findable, and everything is given back."""

from __future__ import annotations

from loadkit.core.blocks import max_hit_blocks
from reference_server.block_tree import Block, BlockTree
from reference_server.node import Node
from reference_server.request import Request


class Holdings:
    """Who computes which prompt block right now, and a request's way from pages to blocks."""

    def __init__(self, tree: BlockTree, block_size: int):
        self.tree, self.block_size = tree, block_size
        self._filling: dict[bytes, Request] = {}

    def enter(self, request: Request) -> None:
        """The request was admitted, and computes the blocks of its prompt that missed."""
        for block_hash in request.hashes[len(request.nodes) : request.num_reserved_end]:
            self._filling.setdefault(block_hash, request)

    def waits_for_another(self, request: Request) -> bool:
        """Whether a running request computes the first block that this one misses, or its leader
        the prompt."""
        leader = request.leader
        if leader is not None and leader.finish_reason is None:
            return leader.num_computed < leader.num_prompt
        if not self._filling:
            return False
        usable = request.hashes[: max_hit_blocks(len(request.tokens), self.block_size)]
        num_matched = len(self.tree.match(usable))
        return num_matched < len(usable) and usable[num_matched] in self._filling

    def publish(self, request: Request) -> bool:
        """Make the blocks findable that are computed. False: there is no room for the next one."""
        while len(request.nodes) < request.num_computed // self.block_size:
            index = len(request.nodes)
            block_hash = request.block_hash(index)
            published = self.tree.publish(
                self._block(request, index, block_hash),
                request.pages[index],
                reserved=index < request.num_reserved_end,
            )
            if published is None:
                return False
            node, is_new = published
            if index >= request.num_blocks_used and request.leader is None:
                request.num_blocks_used = index + 1
                if not is_new:
                    self.tree.order.use((node,), is_new_prompt=request.is_new_prompt)
            request.pages[index] = node.place
            request.nodes.append(node)
            self._stop_filling(block_hash, request)
        return True

    def release(self, request: Request) -> None:
        """Give back every page: the unfinished block's page becomes dead, then the chain is
        touched tail first."""
        for block_hash in request.hashes[len(request.nodes) : request.num_reserved_end]:
            self._stop_filling(block_hash, request)
        has_partial = request.num_computed % self.block_size != 0
        partial = request.num_computed // self.block_size if has_partial else -1
        for index in range(len(request.nodes), len(request.pages)):
            page, reserved = request.pages[index], index < request.num_reserved_end
            if index == partial:
                self.tree.retire(self._block(request, index, None), page, reserved=reserved)
            else:
                self.tree.give_back(page, reserved=reserved, tenant=request.tenant)
        self.tree.release(request.nodes)
        request.nodes, request.pages, request.num_reserved_end = [], [], 0

    def _block(self, request: Request, index: int, block_hash: bytes | None) -> Block:
        """What block `index` of the request holds so far; an unfinished one has no hash."""
        if index:
            request.block_hash(index - 1)
        parent: Node | None = request.nodes[index - 1] if index and block_hash else None
        tokens = request.block_tokens(index)[: request.num_computed - index * self.block_size]
        prefix_hash = request.prefix_hash(index)
        return Block(block_hash, parent, prefix_hash, tuple(tokens), request.tenant)

    def _stop_filling(self, block_hash: bytes, request: Request) -> None:
        if self._filling.get(block_hash) is request:
            del self._filling[block_hash]
