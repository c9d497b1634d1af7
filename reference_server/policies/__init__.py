"""What to evict: a policy is one score; the leaf with the lowest score goes first."""

from __future__ import annotations

from loadkit.core.errors import InputError
from reference_server.policies.base import Policy, Scored
from reference_server.policies.diversity import Diversity
from reference_server.policies.gdsf import GDSF
from reference_server.policies.lfu import LFU, PlainLFU
from reference_server.policies.lru import LRU
from reference_server.policies.slru import SLRU

__all__ = ["POLICIES", "Policy", "Scored", "make_policy"]

POLICIES: dict[str, type[Policy]] = {
    made.name: made for made in (LRU, LFU, PlainLFU, SLRU, GDSF, Diversity)
}


def make_policy(name: str, num_blocks: int, block_size: int) -> Policy:
    """The policy of that name for a cache of that size. InputError for an unknown one."""
    if name not in POLICIES:
        raise InputError(
            f"unknown policy {name!r}", where="--policy", remedy=f"one of {', '.join(POLICIES)}"
        )
    return POLICIES[name](num_blocks, block_size)
