"""The naive answers. They stand beside a forecast, since people ask for them, and never in its place.

On public traces they miss by 2 to 41 points: a sample has fewer companions for every block than
production, and how much that matters depends on the cache's size.
"""

from __future__ import annotations

import numpy as np

from loadkit.analysis.nodes import NodeStream
from loadkit.analysis.weighted import weighted_hits
from loadkit.core.trace import BoolArray, Trace
from loadkit.forecast.counting import last_third
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
    late = weighted_hits(stream, [capacity], ttl, counted=_late(trace))
    return Baselines(
        own_rate=hits.split(0).rate("hit"),
        scaled_capacity=hits.split(1).rate("hit"),
        last_third=late.split(0).rate("hit"),
    )


def _late(trace: Trace) -> BoolArray:
    """(n,) the last third of the window; of the requests if the log has no time."""
    if trace.arrival_s is None or not trace.num_requests:
        return np.arange(trace.num_requests) >= 2 * trace.num_requests // 3
    return last_third(trace.arrival_s)
