"""When a log's requests look the cache up and when their replies enter it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadkit.core.trace import BoolArray, IntArray, Trace


@dataclass(frozen=True, slots=True)
class Events:
    """Arrivals and completions in order of time; e = number of events.

    At an arrival the prompt is looked up and its blocks become resident (vLLM registers them when
    it schedules the request); at a completion the resident chain does, with the unfinished page.
    """

    request: IntArray  # (e,)
    completes: BoolArray  # (e,) False: arrival
    resident_ptr: IntArray  # (n + 1,)
    resident_ids: IntArray
    partial_page: BoolArray  # (n,)


def events_of(trace: Trace) -> Events:
    """The trace's events. A log of ids alone has arrivals only: its prompts are all there is.

    With arrival and completion times events are ordered by time, arrivals first at a tie;
    otherwise every request completes before the next one arrives.
    """
    if trace.resident_ids is None and trace.partial_page is None:
        return prompts_alone(trace)
    num = trace.num_requests
    request = np.concatenate([np.arange(num), np.arange(num)])
    completes = np.repeat([False, True], num)
    order = _order(trace, request, completes)
    resident_ptr, resident_ids = kept_chains(trace)
    partial = trace.partial_page
    return Events(
        request=request[order],
        completes=completes[order],
        resident_ptr=resident_ptr,
        resident_ids=resident_ids,
        partial_page=partial if partial is not None else np.zeros(num, np.bool_),
    )


def prompts_alone(trace: Trace) -> Events:
    """Arrivals only, as if replies and unfinished pages did not exist."""
    num = trace.num_requests
    return Events(
        request=np.arange(num),
        completes=np.zeros(num, np.bool_),
        resident_ptr=np.zeros(num + 1, np.int64),
        resident_ids=np.zeros(0, np.int64),
        partial_page=np.zeros(num, np.bool_),
    )


def _order(trace: Trace, request: IntArray, completes: BoolArray) -> IntArray:
    if trace.arrival_s is None or trace.completed_s is None:
        return np.lexsort((completes, request))
    time = np.concatenate([trace.arrival_s, trace.completed_s])
    return np.lexsort((request, completes, time))


def kept_chains(trace: Trace) -> tuple[IntArray, IntArray]:
    """What each request leaves in the cache: the resident chains, else the prompts."""
    if trace.resident_ptr is None or trace.resident_ids is None:
        return trace.block_ptr, trace.block_ids
    return trace.resident_ptr, trace.resident_ids
