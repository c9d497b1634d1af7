"""Python's garbage collector, kept from holding a run up."""

from __future__ import annotations

import gc

THRESHOLD = 14_000  # new objects before a look at them; Python's own is 700


def calm_collector() -> None:
    """Never go through what is there now again (Locust, a plan), and look at what the run makes
    a twentieth as often. Requests leave no cycles behind, so hardly anything waits for it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD, *gc.get_threshold()[1:])
