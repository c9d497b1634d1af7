"""How long this process's event loop was held up, and how much processor time it used.

A greenlet that sleeps for 10 ms and wakes after 60 was held up for 50: by our own decoding, by
another greenlet, or by a machine that gave the process no time. Whatever was to be sent or read
meanwhile was late by up to as much. Plain `time.sleep`: under Locust it gives way to greenlets.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import msgspec

PERIOD_S = 0.01
STALL_S = 0.01
# Upper ends of the lateness classes: 0.1 ms, and 5% more each: a p99 is exact to 5%.
FIRST_S, RATIO, NUM_CLASSES = 1e-4, 1.05, 256


class StallReport(msgspec.Struct, frozen=True):
    """Lateness of the monitor's wake-ups since its start; None in p99_s and max_s without any.

    num_stalls: wake-ups more than 10 ms late. cpu_s: this process's user and system time.
    """

    samples: int
    num_stalls: int
    p99_s: float | None
    max_s: float | None
    cpu_s: float
    wall_s: float


class StallMonitor:
    """`run()` in a greenlet (or thread) of its own until `stop()`; `report()` at any time.

    Memory is bounded: lateness is kept in classes, the greatest apart.
    """

    def __init__(
        self,
        period_s: float = PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        cpu_clock: Callable[[], float] = time.process_time,
    ):
        self._period_s, self._clock, self._sleep = period_s, clock, sleep
        self._cpu_clock = cpu_clock
        self._counts = [0] * NUM_CLASSES
        self._num_stalls, self._max_s = 0, 0.0
        self._stopped = False
        self._begun, self._cpu_begun = clock(), cpu_clock()

    def run(self) -> None:
        while not self._stopped:
            due = self._clock() + self._period_s
            self._sleep(self._period_s)
            self.observe(self._clock() - due)

    def observe(self, late_s: float) -> None:
        """Count one wake-up that came so late (a timer that fires early is not late)."""
        late_s = max(late_s, 0.0)
        self._max_s = max(self._max_s, late_s)
        self._num_stalls += late_s > STALL_S
        self._counts[_class_of(late_s)] += 1

    def stop(self) -> None:
        self._stopped = True

    def report(self) -> StallReport:
        samples = sum(self._counts)
        return StallReport(
            samples=samples,
            num_stalls=self._num_stalls,
            p99_s=self._quantile(0.99) if samples else None,
            max_s=self._max_s if samples else None,
            cpu_s=self._cpu_clock() - self._cpu_begun,
            wall_s=self._clock() - self._begun,
        )

    def _quantile(self, share: float) -> float:
        """Upper end of the class that holds it, never above the greatest seen."""
        wanted, seen = math.ceil(share * sum(self._counts)), 0
        for number, count in enumerate(self._counts):
            seen += count
            if seen >= wanted:
                return float(min(FIRST_S * RATIO**number, self._max_s))
        return self._max_s


def _class_of(late_s: float) -> int:
    if late_s <= FIRST_S:
        return 0
    return min(math.ceil(math.log(late_s / FIRST_S, RATIO)), NUM_CLASSES - 1)
