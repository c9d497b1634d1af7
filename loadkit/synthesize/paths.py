"""Which blocks each synthetic request is made of: a superposed production, block by block.

A request's path is its prompt and, where the log has replies, its reply: a key for each block of
tokens, the unfinished last one included. Equal keys get equal content. Keys of the log's blocks come
from the production's nodes, so they are shared exactly as the forecast has them shared.

The unfinished block of a turn is begun as the session's next turn goes on, so that the turns of a
session extend one another to the token. Identical prompts must stay identical although they go on
differently, so the tail of such a prompt has a source of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from loadkit.analysis.nodes import NodeStream, node_stream
from loadkit.core.trace import UNKNOWN, BoolArray, FloatArray, IntArray, Trace
from loadkit.forecast.sample import Sample, sample_of
from loadkit.forecast.superpose import superpose, template_of


@dataclass(frozen=True, slots=True)
class Plan:
    """Synthetic requests in order of arrival; n = requests, lengths in tokens.

    reply_tokens are computed reply tokens, UNKNOWN where the log has no replies. asked_tokens is
    how long the log's reply was, UNKNOWN if it does not say. tails: what identical prompts have in
    common in an unfinished block: block key -> (tokens, source key), shortest first.
    """

    block_size: int
    prompt_tokens: IntArray  # (n,)
    reply_tokens: IntArray  # (n,)
    asked_tokens: IntArray  # (n,)
    session: IntArray  # (n,)
    prompt_key: IntArray  # (n,) equal for identical prompts
    arrival_s: FloatArray | None  # (n,) None: a log without timestamps
    latency_s: FloatArray  # (n,) nan if unknown
    path_ptr: IntArray  # (n + 1,)
    path_keys: IntArray
    num_keys: int
    tails: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def path(self, row: int) -> IntArray:
        """Block keys of a request."""
        return self.path_keys[self.path_ptr[row] : self.path_ptr[row + 1]]


def plan_requests(trace: Trace, traffic: float, seed: int = 0) -> Plan:
    """Superpose the log to `traffic` times itself: the very production that `forecast` counts."""
    sample = sample_of(node_stream(trace))
    production = superpose(template_of(sample), traffic, np.random.default_rng([seed, 0]))
    num_copies = max(1, math.ceil(traffic - 1e-9))  # as superpose names the sessions
    return _plan(trace, sample, production.stream, num_copies)


def _plan(trace: Trace, sample: Sample, stream: NodeStream, num_copies: int) -> Plan:
    size, facts = trace.block_size, stream.requests
    template = _template_rows(sample, facts.session, num_copies)
    arrives, completes = _event_rows(stream)
    chain_ptr, chain_keys, num_blocks = _block_chains(stream)
    resident = np.where(completes >= 0, completes, arrives)
    has_replies = trace.resident_ids is not None
    reply = np.full(len(template), UNKNOWN)
    if has_replies:
        page = np.zeros(len(template), np.bool_)
        if trace.partial_page is not None:
            page = trace.partial_page[template]
        full = np.diff(chain_ptr)[resident] - page
        reply = _computed_tokens(trace, template, full, page)
    tokens = facts.prompt_tokens + np.maximum(reply, 0)
    path_ptr, path_keys = _paths(chain_ptr, chain_keys, resident, tokens // size, tokens % size > 0)
    _fill_tails(path_ptr, path_keys, tokens % size > 0, facts.session, num_blocks)
    groups = num_blocks + len(template)
    arrival, latency = _times(sample, stream, arrives, completes)
    return Plan(
        block_size=size,
        prompt_tokens=facts.prompt_tokens,
        reply_tokens=reply,
        asked_tokens=trace.output_tokens[template],
        session=facts.session,
        prompt_key=facts.prompt_key,
        arrival_s=arrival,
        latency_s=latency,
        path_ptr=path_ptr,
        path_keys=path_keys,
        num_keys=groups + len(template),
        tails=_common_tails(path_ptr, path_keys, facts.prompt_key, facts.prompt_tokens, size, groups),
    )  # fmt: skip


def _template_rows(sample: Sample, session: IntArray, num_copies: int) -> IntArray:
    """(n,) row of the log that each synthetic request copies: the same turn of its template."""
    originals = sample.stream.requests.session
    turns = _turn_numbers(originals)
    by_turn = np.lexsort((turns, originals))
    first = np.searchsorted(originals[by_turn], np.arange(sample.num_sessions))
    rows: IntArray = by_turn[first[session // num_copies] + _turn_numbers(session)]
    return rows


def _turn_numbers(session: IntArray) -> IntArray:
    """(n,) how many earlier requests the session has."""
    order = np.argsort(session, kind="stable")
    ordered = session[order]
    starts = np.searchsorted(ordered, ordered)
    turns = np.empty(len(session), np.int64)
    turns[order] = np.arange(len(session)) - starts
    return turns


def _event_rows(stream: NodeStream) -> tuple[IntArray, IntArray]:
    """(n,) each: the event at which a request arrives and the one at which it completes, or -1."""
    events = np.arange(len(stream.event_request))
    arrives, completes = np.full((2, stream.num_requests), -1)
    arrives[stream.event_request[stream.is_arrival]] = events[stream.is_arrival]
    completes[stream.event_request[~stream.is_arrival]] = events[~stream.is_arrival]
    return arrives, completes


def _block_chains(stream: NodeStream) -> tuple[IntArray, IntArray, int]:
    """(ptr, keys, number of keys): the events' chains with every node's blocks written out."""
    base = np.cumsum(stream.weight) - stream.weight
    counts = stream.weight[stream.nodes]
    ends = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=ends[1:])
    keys: IntArray = np.arange(ends[-1]) + np.repeat(base[stream.nodes] - ends[:-1], counts)
    return ends[stream.event_ptr], keys, int(stream.weight.sum())


def _computed_tokens(trace: Trace, template: IntArray, full: IntArray, page: BoolArray) -> IntArray:
    """(n,) reply tokens in the cache: all or all but the last, whichever fits the resident blocks.

    A reply of unknown length just fills its blocks; UNKNOWN where the log has none for the request.
    """
    size, prompt = trace.block_size, trace.prompt_tokens[template]
    least = np.maximum(full * size + page - prompt, 0)
    told = trace.output_tokens[template]
    reply: IntArray = least
    for computed in (told - 1, told):
        kept = prompt + computed
        fits = (computed >= 0) & (kept // size == full) & ((kept % size > 0) == page)
        reply = np.where(fits, computed, reply)
    reply[(reply == 0) & (told == UNKNOWN)] = UNKNOWN
    return reply


def _paths(
    chain_ptr: IntArray, chain_keys: IntArray, event: IntArray, full: IntArray, unfinished: IntArray
) -> tuple[IntArray, IntArray]:
    """Paths as a CSR: the full blocks of the event's chain, and -1 for an unfinished block."""
    counts = full + unfinished
    ptr = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=ptr[1:])
    source = np.arange(ptr[-1]) + np.repeat(chain_ptr[event] - ptr[:-1], counts)
    keys = np.append(chain_keys, -1)[np.minimum(source, len(chain_keys))]
    keys[ptr[1:][unfinished] - 1] = -1
    return ptr, keys


def _fill_tails(
    ptr: IntArray, keys: IntArray, unfinished: IntArray, session: IntArray, first_free: int
) -> None:
    """Give each unfinished block the key with which the session's next request goes on, if it goes
    on, else one of its own."""
    following: dict[int, int] = {}
    for row in range(len(session) - 1, -1, -1):
        start, end = ptr[row], ptr[row + 1]
        if unfinished[row]:
            later = following.get(int(session[row]))
            keys[end - 1] = first_free + row
            if later is not None and _goes_on(ptr, keys, start, end, later):
                keys[end - 1] = keys[ptr[later] + end - 1 - start]
        following[int(session[row])] = row


def _goes_on(ptr: IntArray, keys: IntArray, start: int, end: int, later: int) -> bool:
    """Whether the later path has all full blocks of this one and something after them."""
    depth = end - 1 - start
    first = ptr[later]
    if ptr[later + 1] - first <= depth:
        return False
    return depth == 0 or bool(keys[first + depth - 1] == keys[end - 2])


def _common_tails(
    ptr: IntArray,
    keys: IntArray,
    prompt_key: IntArray,
    prompt_tokens: IntArray,
    size: int,
    first_free: int,
) -> dict[int, list[tuple[int, int]]]:
    """Plan.tails: each group of identical prompts has a source for its unfinished block."""
    _, group, count = np.unique(prompt_key, return_inverse=True, return_counts=True)
    found: dict[int, set[tuple[int, int]]] = {}
    for row in np.flatnonzero((count[group] > 1) & (prompt_tokens % size > 0)):
        key = int(keys[ptr[row] + prompt_tokens[row] // size])
        tail = int(prompt_tokens[row] % size), first_free + int(group[row])
        found.setdefault(key, set()).add(tail)
    return {key: sorted(tails) for key, tails in found.items()}


def _times(
    sample: Sample, stream: NodeStream, arrives: IntArray, completes: IntArray
) -> tuple[FloatArray | None, FloatArray]:
    """(arrivals, latencies); without a clock the production's times are mere ranks."""
    unknown = np.full(len(arrives), np.nan)
    if not sample.has_clock or stream.event_time_s is None:
        return None, unknown
    arrival = stream.event_time_s[arrives]
    latency = np.where(completes >= 0, stream.event_time_s[completes] - arrival, np.nan)
    return arrival, latency
