"""Guesses at a reply's next tokens from continuations that the cache holds."""

from __future__ import annotations

from collections import defaultdict

from reference_server.block_tree import BlockTree
from reference_server.continuations import num_common
from reference_server.request import Request

# Each branch votes with its uses, halved for every RANKS_PER_HALF branches touched since.
RANKS_PER_HALF = 2


class Drafter:
    """Proposes what followed the same prefix before; several branches vote, token by token.

    Only greedy requests are drafted for: the model's own choice is compared with the draft, so the
    reply is the same with and without. A draft ends with the block, at most `max_tokens` long.
    """

    def __init__(self, tree: BlockTree, block_size: int, max_tokens: int):
        self.tree, self.block_size, self.max_tokens = tree, block_size, max_tokens

    def propose(self, request: Request) -> tuple[int, ...]:
        """Tokens that may follow the request's last one; () without a guess."""
        params = request.params
        if params.temperature > 0 or request.num_output < params.min_tokens:
            return ()
        index, offset = divmod(request.num_computed, self.block_size)
        left = min(
            self.max_tokens,
            self.block_size - offset - 1,
            params.max_tokens - request.num_output - 1,
        )
        if left < 1:
            return ()
        if index:
            request.block_hash(index - 1)
        known = request.block_tokens(index)
        return self._vote(request.prefix_hash(index), known, left)

    def _vote(self, prefix_hash: bytes, known: list[int], left: int) -> tuple[int, ...]:
        branches = [
            (node.num_uses * 0.5 ** (rank / RANKS_PER_HALF), node.tokens)
            for rank, node in enumerate(self.tree.continuations.after(prefix_hash))
            if num_common(node.tokens, known) == len(known)
        ]
        draft: list[int] = []
        while branches and len(draft) < left:
            place = len(known) + len(draft)
            votes: dict[int, float] = defaultdict(float)
            for weight, tokens in branches:
                if place < len(tokens):
                    votes[tokens[place]] += weight
            if not votes:
                break
            draft.append(max(votes, key=votes.__getitem__))
            branches = [
                (weight, tokens)
                for weight, tokens in branches
                if place < len(tokens) and tokens[place] == draft[-1]
            ]
        return tuple(draft)
