"""First touches: which session met which node when, and how many other sessions met it too.

Everything that is unknown about production is a question about these: is a node that one session
of the sample touched private to it, or will other sessions of production touch it as well?
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadkit.analysis.nodes import NodeStream, node_starts
from loadkit.core.trace import BoolArray, FloatArray, IntArray
from loadkit.forecast.sample import Sample

# Where openings are cut, in blocks: what is alone in a sample would else be one node from the system
# prompt to the question, shared as a whole or not at all.
DEPTHS = np.array([4, 8, 16, 32, 64, 128, 256])
LATER = 0
NUM_KINDS = len(DEPTHS) + 2


@dataclass(frozen=True, slots=True)
class FirstTouches:
    """One entry a (session, node) pair, p in all, sorted by session.

    Nodes that came with the session's first request (`at_start`) are system prompts, documents and
    opening questions; the rest are later turns and replies. They are shared for other reasons, and
    what stands first in a prompt more than what stands deep in it. So each kind has a law of its
    own: 0 are later turns, 1 and above are openings by depth (see DEPTHS).
    """

    session: IntArray  # (p,)
    node: IntArray  # (p,)
    time_s: FloatArray  # (p,)
    depth: IntArray  # (p,) nodes above this one in the chain
    at_start: BoolArray  # (p,) came with the session's first request
    kind: IntArray  # (p,) whose law
    others: IntArray  # (p,) m: other sessions of the sample that touch the node
    weight: IntArray  # (p,) blocks
    pair_of_touch: IntArray  # (k,) the pair that each touch of the stream belongs to
    node_sessions: IntArray  # (u,) sessions that touch each node, 0 for nodes not in the sample
    node_kind: IntArray  # (u,) whose law, at start or not by majority of its sessions
    prompt_others: IntArray  # (n,) other sessions that send the identical prompt
    opens_session: BoolArray  # (n,) whether the request is its session's first


def first_touches(sample: Sample) -> FirstTouches:
    """Find the pairs with one sort of the touches."""
    stream = sample.stream
    event = np.repeat(np.arange(len(stream.event_request)), np.diff(stream.event_ptr))
    session = sample.session_of_event[event]
    _, touch, pair_of_touch = np.unique(
        session * stream.num_nodes + stream.nodes, return_index=True, return_inverse=True
    )
    opens = _opens_session(stream.requests.session, sample.num_sessions)
    node, event = stream.nodes[touch], event[touch]
    stratum = _stratum(stream)
    at_start = opens[stream.event_request[event]] & stream.is_arrival[event]
    node_sessions = np.bincount(node, minlength=stream.num_nodes)
    starts = np.bincount(node[at_start], minlength=stream.num_nodes)
    return FirstTouches(
        session=session[touch],
        node=node,
        time_s=sample.time_s[event],
        depth=touch - stream.event_ptr[event],
        at_start=at_start,
        kind=np.where(at_start, stratum[node], LATER),
        others=node_sessions[node] - 1,
        weight=stream.weight[node],
        pair_of_touch=pair_of_touch.reshape(-1).astype(np.int64),
        node_sessions=node_sessions,
        node_kind=np.where(2 * starts >= node_sessions, stratum, LATER),
        prompt_others=_prompt_others(stream.requests.prompt_key, stream.requests.session),
        opens_session=opens,
    )


def _stratum(stream: NodeStream) -> IntArray:
    """(u,) 1 + the interval of DEPTHS in which each node starts; nodes are cut at them already."""
    return 1 + np.searchsorted(DEPTHS, node_starts(stream), side="right")


def _opens_session(session: IntArray, num_sessions: int) -> BoolArray:
    """(n,) whether a request is the first of its session; requests are in order of arrival."""
    rows = np.arange(len(session))
    first = np.full(num_sessions, len(session))
    np.minimum.at(first, session, rows)
    opens: BoolArray = first[session] == rows
    return opens


def _prompt_others(prompt_key: IntArray, session: IntArray) -> IntArray:
    """(n,) other sessions that send the identical prompt."""
    _, key = np.unique(prompt_key, return_inverse=True)
    pairs = np.unique(key.reshape(-1) * (session.max(initial=0) + 1) + session)
    senders = np.bincount(pairs // (session.max(initial=0) + 1), minlength=len(prompt_key))
    found: IntArray = senders[key.reshape(-1)] - 1
    return found
