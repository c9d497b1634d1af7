"""Consistent hashing with bounded loads: nothing is remembered, nobody is overrun.

Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from reference_server.router.fleet import Replica

POINTS = 64
# A replica may not be ahead of the mean load by more than a quarter; as in the forecast's router.
LOAD_BOUND = 1.25


class Ring:
    """POINTS points of each replica on a circle; a key goes to the next one that has room."""

    def __init__(self, num_replicas: int) -> None:
        points = [
            (_point(b"%d/%d" % (index, number)), index)
            for index in range(num_replicas)
            for number in range(POINTS)
        ]
        self._points = sorted(points)

    def pick(self, affinity: bytes, up: Sequence[Replica]) -> Replica:
        """The first on the way with fewer requests in flight than LOAD_BOUND times their mean.

        `up` is not empty. The mean counts the request itself, so that somebody always has room.
        """
        running = sum(replica.num_in_flight for replica in up) + 1
        most = math.ceil(LOAD_BOUND * running / len(up))
        free = {r.index: r for r in up if r.num_in_flight < most}
        return next(free[index] for index in self._way(affinity) if index in free)

    def _way(self, affinity: bytes) -> Iterator[int]:
        start = bisect(self._points, (_point(affinity), -1))
        for number in range(len(self._points)):
            yield self._points[(start + number) % len(self._points)][1]


def _point(key: bytes) -> int:
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")
