"""Copies of sessions: down to which node does a copy follow which template?

Copy 0 is the session of the sample. Copy c > 0 draws one number u and, uniformly, a parent among
the copies 0..c-1. At a node with leaving probability ph (the largest on the path so far) a copy with
u < ph has left: the node is its own. Otherwise it has what its parent has there. One u for the whole
path keeps every chain consistent: who has left stays away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadkit.core.csr import pointers
from loadkit.core.jit import compiled
from loadkit.core.trace import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """Who follows whom, and how far. c = copies of each session, the sample's own included."""

    stay: FloatArray  # (s, c) u: the copy follows its parent where u >= ph
    parent: IntArray  # (s, c) copy that it follows, 0 is the sample
    phi: FloatArray  # (u,) leaving probability of each node
    prompt_phi: FloatArray  # (n,) of each request's whole prompt, partial tail included


def draw_family(
    num_sessions: int, num_copies: int, random: np.random.Generator
) -> tuple[FloatArray, IntArray]:
    """(u, parent) of every copy, each (s, c)."""
    stay = random.random((num_sessions, num_copies))
    parent = random.random((num_sessions, num_copies)) * np.arange(num_copies)
    return stay, parent.astype(np.int64)


def copy_chains(
    plan: CopyPlan,
    chains: tuple[IntArray, IntArray, IntArray],
    events: tuple[IntArray, IntArray, IntArray],
    session: IntArray,
    bounds: tuple[int, int],
) -> tuple[IntArray, IntArray, IntArray]:
    """Chains of copied events: (ptr, ids, prompt_owner).

    chains: (ptr, nodes, pair_of_touch) of the sample. events: (event, copy, request) of what is
    wanted, in the order wanted. session (n,) of requests. bounds: (num_nodes, num_pairs). An id is
    the sample's node where copy 0's is meant, else num_nodes + (owner - 1) * num_pairs + pair, so
    ids need no sorting. prompt_owner is the copy whose identical prompt the event sends.
    """
    event_ptr = chains[0]
    ptr = pointers(np.diff(event_ptr)[events[0]])
    ids, owner = np.empty(ptr[-1], np.int64), np.empty(len(events[0]), np.int64)
    _copy_chains(
        *chains, *events, session, plan.stay, plan.parent, plan.phi, plan.prompt_phi, *bounds,
        ptr, ids, owner,
    )  # fmt: skip
    return ptr, ids, owner


@compiled
def _copy_chains(
    event_ptr: IntArray,
    nodes: IntArray,
    pair_of_touch: IntArray,
    event: IntArray,
    copy: IntArray,
    request: IntArray,
    session: IntArray,
    stay: FloatArray,
    parent: IntArray,
    phi: FloatArray,
    prompt_phi: FloatArray,
    num_nodes: int,
    num_pairs: int,
    ptr: IntArray,
    ids: IntArray,
    prompt_owner: IntArray,
) -> None:
    for row in range(len(event)):
        who = session[request[row]]
        owner, leaves = copy[row], 0.0
        out = ptr[row]
        for touch in range(event_ptr[event[row]], event_ptr[event[row] + 1]):
            leaves = max(leaves, phi[nodes[touch]])
            # From the copy again at every node: the deeper, the more have left their parents.
            owner = copy[row]
            while owner > 0 and stay[who, owner] >= leaves:
                owner = parent[who, owner]
            if owner == 0:
                ids[out] = nodes[touch]
            else:
                ids[out] = num_nodes + (owner - 1) * num_pairs + pair_of_touch[touch]
            out += 1
        leaves = max(leaves, prompt_phi[request[row]])
        owner = copy[row]
        while owner > 0 and stay[who, owner] >= leaves:
            owner = parent[who, owner]
        prompt_owner[row] = owner
