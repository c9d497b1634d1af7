"""What entered and left the cache, for whoever wants to follow it (a router, a stream)."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from typing import NamedTuple

MAX_EVENTS = 10_000
STORED, REMOVED, CLEARED = "stored", "removed", "cleared"


class KVEvent(NamedTuple):
    """`number` counts from 1 without gaps. tier: where the block is now, or was removed from.

    block and parent are chained hashes, salted by tenant; both None for "cleared".
    """

    number: int
    kind: str
    block: bytes | None = None
    parent: bytes | None = None
    tier: str = "device"


class KVEvents:
    """The last `limit` events. Written by the engine's thread, read from any."""

    def __init__(self, limit: int = MAX_EVENTS):
        self._events: deque[KVEvent] = deque(maxlen=limit)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def add(
        self,
        kind: str,
        block: bytes | None = None,
        parent: bytes | None = None,
        tier: str = "device",
    ) -> None:
        with self._lock:
            self._events.append(KVEvent(next(self._numbers), kind, block, parent, tier))

    @property
    def last_number(self) -> int:
        """0: there was no event yet."""
        with self._lock:
            return self._events[-1].number if self._events else 0

    def since(self, number: int = 0) -> tuple[list[KVEvent], int]:
        """Events after that number, and how many of them were lost, as the reader was too slow."""
        with self._lock:
            first = self._events[0].number if self._events else number + 1
            num_known = max(0, number + 1 - first)  # numbers have no gaps
            events = list(itertools.islice(self._events, num_known, None))
        return events, max(0, first - number - 1)
