"""The log as a sample of sessions: what the superposition is built from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from loadkit.analysis.nodes import NodeStream, select_requests
from loadkit.core.csr import pointers
from loadkit.core.trace import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Sample:
    """s = sessions, all with at least one request. Times count from the start of the window.

    A subset of the sessions keeps the whole window, since it is the same period seen more thinly.
    """

    stream: NodeStream  # request sessions are dense, 0..s-1
    time_s: FloatArray  # (e,) event times
    window_s: float
    first_s: FloatArray  # (s,) first arrival of a session
    last_s: FloatArray  # (s,) last event of a session
    has_clock: bool  # False: times are the events' ranks, so only an infinite cache makes sense

    @property
    def num_sessions(self) -> int:
        return len(self.first_s)

    @property
    def session_of_event(self) -> IntArray:
        found: IntArray = self.stream.requests.session[self.stream.event_request]
        return found

    def blocks_by_session(self) -> FloatArray:
        """(s,) prompt blocks that each session asked for, repeats included."""
        asked = np.where(self.stream.is_arrival, self._blocks_of_events(), 0)
        found = np.zeros(self.num_sessions)
        np.add.at(found, self.session_of_event, asked)
        return found

    def longest_request(self) -> int:
        """Most blocks that one event makes resident: a smaller cache cannot serve this log."""
        return int(self._blocks_of_events().max(initial=0))

    def distinct_blocks(self) -> int:
        """Distinct blocks of this sample (not of the log that it may be a subset of)."""
        used = np.zeros(self.stream.num_nodes, np.bool_)
        used[self.stream.nodes] = True
        return int(self.stream.weight[used].sum())

    def take(self, sessions: IntArray) -> Sample:
        """The sample made of some of the sessions, over the same window."""
        chosen = np.zeros(self.num_sessions, np.bool_)
        chosen[sessions] = True
        return self._of_requests(chosen[self.stream.requests.session])

    def _of_requests(self, chosen: BoolArray) -> Sample:
        kept = chosen[self.stream.event_request]
        stream = _with_dense_sessions(select_requests(self.stream, chosen))
        return _sample(stream, self.time_s[kept], self.window_s, self.has_clock)

    def _blocks_of_events(self) -> IntArray:
        total = pointers(self.stream.weight[self.stream.nodes])
        return np.diff(total[self.stream.event_ptr])


def sample_of(stream: NodeStream) -> Sample:
    """All sessions of a log. Without timestamps the order of events stands for time."""
    stream = _with_dense_sessions(stream)
    has_clock = stream.event_time_s is not None
    time_s = np.arange(len(stream.event_request), dtype=np.float64)
    if stream.event_time_s is not None:
        time_s = stream.event_time_s - stream.event_time_s.min(initial=np.inf)
    window_s = float(time_s[stream.is_arrival].max(initial=0.0))
    return _sample(stream, time_s, window_s, has_clock)


def _sample(stream: NodeStream, time_s: FloatArray, window_s: float, has_clock: bool) -> Sample:
    session = stream.requests.session[stream.event_request]
    num_sessions = int(stream.requests.session.max(initial=-1)) + 1
    first, last = np.full(num_sessions, np.inf), np.zeros(num_sessions)
    np.minimum.at(first, session, time_s)
    np.maximum.at(last, session, time_s)
    return Sample(stream, time_s, window_s, first, last, has_clock)


def _with_dense_sessions(stream: NodeStream) -> NodeStream:
    _, dense = np.unique(stream.requests.session, return_inverse=True)
    requests = replace(stream.requests, session=dense.reshape(-1).astype(np.int64))
    return replace(stream, requests=requests)
