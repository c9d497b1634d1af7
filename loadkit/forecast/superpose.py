"""Superposition: a synthetic production trace of R copies of the sampled sessions, laid over it.

Copy 0 of every session is the session itself at its own time, so at R = 1 the trace is the sample.
Weights stay in blocks and lengths in tokens: a copied request has its template's prompt tokens, the
partial tail included, and its template's limit of hit blocks and hit tokens by the engine's rule. Its own earlier blocks, and whether its session sent the same prompt
before, are its template's too, since a copy maps the nodes of a session one to one. It repeats a
prompt of another session only if it follows the template down to the end of the prompt, tail
included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from loadkit.analysis.causes import REPLAY_CROSS_SESSION, REPLAY_NONE, REPLAY_SAME_SESSION
from loadkit.analysis.nodes import (
    KindArray,
    NodeRequests,
    NodeStream,
    split_at_depths,
)
from loadkit.core.trace import BoolArray, FloatArray, IntArray
from loadkit.forecast.copies import CopyPlan, copy_chains, draw_family
from loadkit.forecast.first_touches import DEPTHS, FirstTouches, first_touches
from loadkit.forecast.leaving import Laws, node_laws, prompt_laws
from loadkit.forecast.sample import Sample
from loadkit.forecast.times import Jitter, start_shifts


@dataclass(frozen=True, slots=True)
class Template:
    """A sample with what was learnt from it; makes production traces at any traffic."""

    sample: Sample
    touches: FirstTouches
    laws: Laws
    prompt_laws: Laws


@dataclass(frozen=True, slots=True)
class Production:
    """A synthetic trace. Its ids may have gaps, so its size is told apart from its id space."""

    stream: NodeStream
    distinct_blocks: int


def template_of(sample: Sample) -> Template:
    """Learn first touches and discovery laws (the laws lazily)."""
    sample = replace(sample, stream=split_at_depths(sample.stream, DEPTHS))
    touches = first_touches(sample)
    prompts = prompt_laws(touches, sample.stream.requests.prompt_tokens)
    return Template(sample, touches, node_laws(touches), prompts)


def superpose(
    template: Template,
    traffic: float,
    random: np.random.Generator,
    *,
    alone: str = "estimate",
    jitter: Jitter = "neighbour",
    move_sample: bool = False,
) -> Production:
    """Build production at `traffic` times the sample's.

    A fraction of traffic above a whole number is a random part of the sessions in the last copy;
    traffic below 1 thins the sessions. `alone` is estimate, private or shareable, see Laws.
    move_sample moves copy 0 as well, which only the shift test wants.
    """
    sample = template.sample
    num_copies = max(1, math.ceil(traffic - 1e-9))
    plan = _plan(template, traffic, num_copies, alone, random)
    shift = start_shifts(
        sample, template.touches, plan, random, jitter=jitter, move_sample=move_sample
    )
    kept = _kept(sample.num_sessions, traffic, num_copies, random)
    return _merge(template, plan, shift, kept)


def _plan(
    template: Template, traffic: float, num_copies: int, alone: str, random: np.random.Generator
) -> CopyPlan:
    touches, stream = template.touches, template.sample.stream
    stay, parent = draw_family(template.sample.num_sessions, num_copies, random)
    if num_copies == 1:
        return CopyPlan(stay, parent, np.zeros(stream.num_nodes), np.zeros(stream.num_requests))
    nodes = template.laws.leaving(traffic, alone)
    prompts = template.prompt_laws.leaving(traffic, alone)
    return CopyPlan(
        stay,
        parent,
        phi=nodes.of(touches.node_sessions - 1, touches.node_kind),
        prompt_phi=prompts.of(touches.prompt_others, touches.opens_session.astype(np.int64)),
    )


def _kept(
    num_sessions: int, traffic: float, num_copies: int, random: np.random.Generator
) -> BoolArray:
    """(s, c) which copies exist: all, but of the last one only the fraction that traffic asks."""
    kept = np.ones((num_sessions, num_copies), np.bool_)
    fraction = traffic - (num_copies - 1)
    if fraction < 1 - 1e-9:
        chosen = random.permutation(num_sessions)[: max(1, round(fraction * num_sessions))]
        kept[:, -1] = False
        kept[chosen, -1] = True
    return kept


def _merge(template: Template, plan: CopyPlan, shift: FloatArray, kept: BoolArray) -> Production:
    sample, touches = template.sample, template.touches
    stream, num_copies = sample.stream, kept.shape[1]
    session = sample.session_of_event
    copy, event = np.nonzero(kept.T[:, session])
    time_s = sample.time_s[event] + shift[session[event], copy]
    order = np.argsort(time_s, kind="stable")  # ties: a copy's own order is kept
    copy, event, time_s = copy[order], event[order], time_s[order]
    request = stream.event_request[event]
    num_pairs = len(touches.node)
    ptr, ids, owner = copy_chains(
        plan,
        (stream.event_ptr, stream.nodes, touches.pair_of_touch),
        (event, copy, request),
        stream.requests.session,
        (stream.num_nodes, num_pairs),
    )
    weight = np.concatenate([stream.weight, np.tile(touches.weight, num_copies - 1)])
    arrives = stream.is_arrival[event]
    requests = _requests(
        stream.requests, request[arrives], copy[arrives], owner[arrives], num_copies
    )
    merged = NodeStream(
        block_size=stream.block_size,
        event_ptr=ptr,
        nodes=ids,
        weight=weight,
        event_request=_new_rows(request, copy, arrives, num_copies),
        is_arrival=arrives,
        event_time_s=time_s,
        requests=requests,
    )
    return Production(merged, _distinct(ids, weight))


def _new_rows(request: IntArray, copy: IntArray, arrives: BoolArray, num_copies: int) -> IntArray:
    """(e,) rows of the copied requests, counted in order of arrival."""
    name = request * num_copies + copy
    row_of = np.zeros(int(name.max(initial=-1)) + 1, np.int64)
    row_of[name[arrives]] = np.arange(int(arrives.sum()))
    rows: IntArray = row_of[name]
    return rows


def _requests(
    originals: NodeRequests, request: IntArray, copy: IntArray, owner: IntArray, num_copies: int
) -> NodeRequests:
    """Facts of copied requests in order of arrival."""
    taken = originals.take(request)
    key = _prompt_keys(taken, owner, num_copies)
    return replace(
        taken,
        prompt_key=key,
        session=taken.session * num_copies + copy,
        replay=_replays(taken.replay, key),
    )


def _prompt_keys(taken: NodeRequests, owner: IntArray, num_copies: int) -> IntArray:
    """Keys equal for identical whole prompts: the sample's own, or one per (session, owner, key)."""
    num_keys = int(taken.prompt_key.max(initial=-1)) + 1
    own = (taken.session * num_copies + owner) * num_keys + taken.prompt_key + num_keys
    return np.where(owner == 0, taken.prompt_key, own)


def _replays(template_replay: KindArray, key: IntArray) -> KindArray:
    _, first, index = np.unique(key, return_index=True, return_inverse=True)
    seen = first[index.reshape(-1)] < np.arange(len(key))
    replay = np.where(seen, REPLAY_CROSS_SESSION, REPLAY_NONE).astype(np.int8)
    replay[template_replay == REPLAY_SAME_SESSION] = REPLAY_SAME_SESSION
    return replay


def _distinct(ids: IntArray, weight: IntArray) -> int:
    used = np.zeros(len(weight), np.bool_)
    used[ids] = True
    return int(weight[used].sum())
