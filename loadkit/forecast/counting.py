"""Counting a trace, logged or synthetic: on a fleet, and from cold starts of a given length."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np

from loadkit.analysis.nodes import NodeStream, select_requests, times_of
from loadkit.analysis.weighted import WeightedHits, weighted_hits
from loadkit.core.trace import BoolArray, FloatArray
from loadkit.forecast.fleet import Fleet, fleet_hits
from loadkit.forecast.interval import Capacities

COLD_STARTS = 8  # moments of the period at which a short run may begin


def rates_of(hits: WeightedHits) -> FloatArray:
    """(2, c) hit rate and organic hit rate; nan where there are no tokens."""
    return np.stack([hits.hit_rates(), hits.organic_rates()])


def count_fleet(
    stream: NodeStream, capacities: Capacities, fleet: Fleet, horizon_s: float | None, seed: int
) -> WeightedHits:
    """Hits of the whole trace; with `horizon_s`, of all cold starts of that length together."""
    if horizon_s is None:
        return fleet_hits(stream, capacities, fleet, seed)
    return reduce(add, count_cold_starts(stream, capacities, fleet, horizon_s, seed))


def count_cold_starts(
    stream: NodeStream, capacities: Capacities, fleet: Fleet, horizon_s: float, seed: int
) -> list[WeightedHits]:
    """Hits of runs that begin cold at evenly spaced moments of the trace and last `horizon_s`.

    A prompt sent before the run began still counts as a replay: cause is a matter of history.
    """
    windows = cold_windows(arrivals(stream), horizon_s)
    return [fleet_hits(select_requests(stream, rows), capacities, fleet, seed) for rows in windows]


def cold_windows(arrival_s: FloatArray, horizon_s: float) -> list[BoolArray]:
    """(n,) masks of the requests inside each window; one window if the horizon is all there is."""
    if not len(arrival_s):
        return [np.zeros(0, np.bool_)]
    first, last = float(arrival_s.min()), float(arrival_s.max())
    starts = np.linspace(first, max(first, last - horizon_s), COLD_STARTS)
    return [
        np.asarray((arrival_s >= start) & (arrival_s <= start + horizon_s))
        for start in np.unique(starts)
    ]


def arrivals(stream: NodeStream) -> FloatArray:
    """(n,) arrival times of the requests."""
    arrival = np.zeros(stream.num_requests)
    arrival[stream.event_request[stream.is_arrival]] = times_of(stream)[stream.is_arrival]
    return arrival


def last_third(arrival_s: FloatArray) -> BoolArray:
    """(n,) requests in the last third of the time; there must be one."""
    first, last = arrival_s.min(), arrival_s.max()
    return np.asarray(arrival_s >= first + (last - first) * 2 / 3)


def warm_rate(stream: NodeStream, capacity: int | None, ttl_s: float | None) -> float | None:
    """Hit rate of the last third of the period on one cache, warmed by all before; None without
    timestamps."""
    if stream.event_time_s is None or not stream.num_requests:
        return None
    late = last_third(arrivals(stream))
    return weighted_hits(stream, [capacity], [ttl_s], late).split(0).rate("hit")
