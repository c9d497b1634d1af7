"""The naive answers. They stand beside a forecast, since people ask for them, and never in its place.

On public traces they miss by 2 to 41 points: a sample has fewer companions for every block than
production, and how much that matters depends on the cache's size.
"""

from __future__ import annotations

import numpy as np

from loadkit.analysis.nodes import BoolArray, NodeStream
from loadkit.analysis.weighted import weighted_hits
from loadkit.core.trace import Trace
from loadkit.forecast.model import Baselines, Scenario


def baselines(trace: Trace, stream: NodeStream, scenario: Scenario) -> Baselines:
    """The log's own rates at the asked capacity and TTL; None for a log without tokens, and
    with a time to live but no timestamps."""
    if scenario.ttl_s is not None and stream.event_time_s is None:
        return Baselines(None, None, None)
    capacity = scenario.capacity_blocks
    scaled = None if capacity is None else max(1, round(capacity / scenario.traffic))
    ttl = [scenario.ttl_s]
    hits = weighted_hits(stream, [capacity, scaled], ttl)
    late = weighted_hits(stream, [capacity], ttl, counted=last_third(trace))
    return Baselines(
        own_rate=hits.split(0).rate("hit"),
        scaled_capacity=hits.split(1).rate("hit"),
        last_third=late.split(0).rate("hit"),
    )


def last_third(trace: Trace) -> BoolArray:
    """(n,) requests in the last third of the window; of the requests if the log has no time."""
    late = np.zeros(trace.num_requests, np.bool_)
    if trace.arrival_s is None or not len(trace.arrival_s):
        late[2 * trace.num_requests // 3 :] = True
        return late
    first, last = trace.arrival_s[0], trace.arrival_s[-1]
    return np.asarray(trace.arrival_s >= first + (last - first) * 2 / 3)
