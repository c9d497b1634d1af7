"""A log served from its engine's own pool, where the log says how long its requests ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from loadkit.analysis.curve import CurvePoint, rates_of_point
from loadkit.analysis.engines import hit_tokens
from loadkit.analysis.nodes import NodeStream, times_of
from loadkit.analysis.per_request import PerRequest
from loadkit.analysis.reuse import Reuse
from loadkit.analysis.simulate.policies import requests_of
from loadkit.analysis.simulate.pools import Chains, Pool, Served, Times, log_times, serve
from loadkit.analysis.simulate.reference_pool import ReferencePool
from loadkit.analysis.simulate.sglang_pool import SglangPool
from loadkit.analysis.simulate.vllm_pool import VllmPool
from loadkit.analysis.stack import Positions, stack_positions
from loadkit.analysis.weighted import leading_blocks
from loadkit.core.csr import places, pointers
from loadkit.core.errors import CannotMeasure, InputError
from loadkit.core.trace import UNKNOWN, BoolArray, FloatArray, IntArray, Trace

POOLS: dict[str, Callable[[Chains, int | None], Pool]] = {
    "vllm": VllmPool,
    "sglang": SglangPool,
    "reference": ReferencePool,
}
NAMES = {"vllm": "vLLM's", "sglang": "SGLang's", "reference": "the reference server's"}
# Blocks that all requests touch together: a minute or so of one core for each capacity.
MAX_TOUCHES = 5_000_000
ON_ARRIVAL = "placed on arrival; engines place at finish"


class PoolPoint(msgspec.Struct, frozen=True):
    """One capacity. arrival_hit_rate: of the exact pass, which places on arrival. mean_wait_s: from
    arrival to start. refused_requests: those that never fit. Rates are None without tokens."""

    capacity_blocks: int
    hit_rate: float | None
    arrival_hit_rate: float | None
    mean_wait_s: float | None
    refused_requests: int
    preemptions: int


class Placement(msgspec.Struct, frozen=True):
    """How a finite cache was filled. order `arrival`: by the exact pass, one request after another;
    `engine`: by the engine's own pool in event time, `points` has a line a capacity. note says so."""

    order: Literal["arrival", "engine"]
    note: str
    points: tuple[PoolPoint, ...] = ()


def place(
    reuse: Reuse,
    engine: str,
    capacities: Sequence[int],
    latency_s: float | None = None,
    prefill_tokens_per_s: float | None = None,
) -> tuple[Placement | None, list[PerRequest]]:
    """Serve the log at each capacity from the engine's pool; no requests where that cannot be, and no
    placement for a rule without a pool.

    `latency_s` stands for all requests' latencies, see `pools.log_times`. InputError for latencies
    that no pool asks for.
    """
    reason = _why_not(reuse, engine, latency_s)
    if engine not in POOLS and latency_s is prefill_tokens_per_s is None:
        return None, []
    if reason is not None:
        if latency_s is not None or prefill_tokens_per_s is not None:
            raise InputError(f"--latency cannot be used: {reason}", where="--latency")
        return Placement("arrival", f"{ON_ARRIVAL}: {reason}"), []
    chains, times = Chains(reuse), log_times(reuse.trace, latency_s, prefill_tokens_per_s)
    served = [serve(POOLS[engine](chains, capacity), chains, times) for capacity in capacities]
    requests = [requests_of(reuse, each.hit_blocks) for each in served]
    points = tuple(
        _point(capacity, each, found, requests_of(reuse, reuse.hit_blocks(capacity)), times)
        for capacity, each, found in zip(capacities, served, requests, strict=True)
    )
    return Placement("engine", _note(engine, points), points), requests


@dataclass(frozen=True, slots=True)
class _Unpacked:
    """A stream's blocks one by one, as `pools.RuledLog`."""

    trace: Trace
    max_hit_blocks: IntArray


def place_streams(
    streams: Sequence[NodeStream],
    engine: str,
    capacity: int,
    latency_s: float,
    prefill_tokens_per_s: float | None = None,
) -> tuple[Placement, list[PerRequest]]:
    """The same for made-up logs that together answer one question. What a reply leaves unfinished
    counts as a block of its own. CannotMeasure for more blocks than can be served one by one."""
    found, points = [], []
    for stream in streams:
        touches = int(stream.weight[stream.nodes].sum())
        if touches > MAX_TOUCHES:
            raise CannotMeasure(
                f"{touches:,} blocks are touched at that traffic, more than {MAX_TOUCHES:,} one by one",
                remedy="leave --latency out: blocks are then placed on arrival",
            )
        log = _unpack(stream)
        chains, times = Chains(log), log_times(log.trace, latency_s, prefill_tokens_per_s)
        served = serve(POOLS[engine](chains, capacity), chains, times)
        positions = stack_positions(stream)
        on_arrival = _requests(stream, positions, leading_blocks(stream, positions, capacity))
        found.append(_requests(stream, positions, served.hit_blocks))
        points.append(_point(capacity, served, found[-1], on_arrival, times))
    return Placement("engine", _note(engine, points), tuple(points)), found


def _unpack(stream: NodeStream) -> _Unpacked:
    """Node by node; rows are in order of arrival, as `log_times` and the loop want them."""
    first = pointers(stream.weight)[:-1]
    arrives, completes = (
        _chains_of(stream, first, chosen) for chosen in (stream.is_arrival, ~stream.is_arrival)
    )
    asked = stream.requests
    trace = Trace(
        block_size=stream.block_size,
        prompt_tokens=asked.prompt_tokens,
        block_ptr=arrives[0],
        block_ids=arrives[1],
        prompt_key=asked.prompt_key,
        session=asked.session,
        num_sessions=int(asked.session.max(initial=-1)) + 1,
        sessions_inferred=False,
        output_tokens=np.full(stream.num_requests, UNKNOWN),
        arrival_s=_by_row(stream, times_of(stream)),
        resident_ptr=None if stream.is_arrival.all() else completes[0],
        resident_ids=None if stream.is_arrival.all() else completes[1],
    )
    return _Unpacked(trace, asked.max_hit_blocks)


def _by_row(stream: NodeStream, of_event: FloatArray) -> FloatArray:
    rows = np.empty(stream.num_requests)
    rows[stream.event_request[stream.is_arrival]] = of_event[stream.is_arrival]
    return rows


def _chains_of(stream: NodeStream, first: IntArray, chosen: BoolArray) -> tuple[IntArray, IntArray]:
    """Blocks of the chosen events as a CSR by row; a node's blocks are numbered from `first` on."""
    events = np.flatnonzero(chosen)
    events = events[np.argsort(stream.event_request[events], kind="stable")]
    counts = np.diff(stream.event_ptr)[events]
    nodes = stream.nodes[places(stream.event_ptr[events], counts)]
    blocks = pointers(stream.weight[nodes])[pointers(counts)]
    return blocks, places(first[nodes], stream.weight[nodes])


def _requests(stream: NodeStream, positions: Positions, hit_blocks: IntArray) -> PerRequest:
    asked = stream.requests
    most = asked.max_hit_blocks

    def tokens(blocks: IntArray) -> IntArray:
        return hit_tokens(np.minimum(blocks, most), asked.prompt_tokens, stream.block_size)

    resident = tokens(hit_blocks)
    reusable = np.maximum(tokens(leading_blocks(stream, positions, None)), resident)
    return PerRequest(
        prompt_tokens=asked.prompt_tokens,
        replay=asked.replay,
        own_prefix_tokens=tokens(asked.own_blocks),
        reusable_tokens=reusable,
        resident_tokens=resident,
        miss_capacity_tokens=reusable - resident,
    )


def with_pools(
    points: Sequence[CurvePoint], capacities: Sequence[int], served: Sequence[PerRequest]
) -> list[CurvePoint]:
    """The curve with what the pools hit at these capacities in place of the exact pass."""
    found = dict(zip(capacities, served, strict=False))
    return [
        msgspec.structs.replace(point, **rates_of_point(found[point.capacity_blocks].total()))
        if point.capacity_blocks in found
        else point
        for point in points
    ]


def _why_not(reuse: Reuse, engine: str, latency_s: float | None) -> str | None:
    trace = reuse.trace
    if engine not in POOLS:
        return f"the rule {engine} has no pool"
    if trace.kept_blocks:
        return "pools of models with states or windows are not simulated"
    if trace.arrival_s is None:
        return "the log has no timestamps"
    if latency_s is None and trace.completed_s is None:
        return "give --latency"
    touches = trace.num_blocks if trace.resident_ids is None else len(trace.resident_ids)
    if touches > MAX_TOUCHES:
        return f"the log touches {touches:,} blocks, more than {MAX_TOUCHES:,}"
    return None


def _point(
    capacity: int, served: Served, requests: PerRequest, on_arrival: PerRequest, times: Times
) -> PoolPoint:
    waits = (served.start_s - times.arrival_s)[~np.isnan(served.start_s)]
    return PoolPoint(
        capacity_blocks=capacity,
        hit_rate=requests.total().rate("hit"),
        arrival_hit_rate=on_arrival.total().rate("hit"),
        mean_wait_s=float(waits.mean()) if len(waits) else None,
        refused_requests=served.num_refused,
        preemptions=served.num_preemptions,
    )


def _note(engine: str, points: Sequence[PoolPoint]) -> str:
    """How far apart the two orders are, and who found no room."""
    apart = [
        100 * (point.hit_rate - point.arrival_hit_rate)
        for point in points
        if point.hit_rate is not None and point.arrival_hit_rate is not None
    ]
    note = f"{NAMES[engine]} pool in event time, requests overlap"
    if apart:
        span = " to ".join(f"{each:+.1f}" for each in sorted({min(apart), max(apart)}))
        note += f": {span} points against blocks placed on arrival"
    refused = max((point.refused_requests for point in points), default=0)
    if refused:
        note += f"; {refused:,} requests are larger than the cache and were left out"
    return note
