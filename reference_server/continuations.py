"""What came after a prefix: the blocks and unfinished pages behind each chained hash."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from reference_server.node import DEVICE, Node

MAX_BRANCHES = 32  # looked at after one prefix, the most recent first


class Continuations:
    """Nodes by the hash of what is before them, in order of their last touch."""

    def __init__(self) -> None:
        self._after: dict[bytes, dict[Node, None]] = {}

    def touch(self, node: Node) -> None:
        """Note a node, or that it is the most recent one now."""
        branches = self._after.setdefault(node.parent_hash, {})
        branches.pop(node, None)
        branches[node] = None

    def discard(self, node: Node) -> None:
        branches = self._after.get(node.parent_hash)
        if branches is not None:
            branches.pop(node, None)
            if not branches:
                del self._after[node.parent_hash]

    def clear(self) -> None:
        self._after.clear()

    def after(self, prefix_hash: bytes) -> Iterator[Node]:
        """The most recent nodes behind a prefix, at most MAX_BRANCHES."""
        return itertools.islice(reversed(self._after.get(prefix_hash, {})), MAX_BRANCHES)

    def kept_tail(self, prefix_hash: bytes, tokens: Sequence[int]) -> tuple[int, int]:
        """(page, n): a device page behind the prefix whose first n tokens are those of `tokens`;
        the longest such n, (-1, 0) if there is none."""
        best = (-1, 0)
        for node in self.after(prefix_hash):
            if node.tier == DEVICE:
                num = num_common(node.tokens, tokens)
                if num > best[1]:
                    best = (node.place, num)
                    if num == len(tokens):
                        break
        return best


def num_common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common prefix."""
    num = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        num += 1
    return num
