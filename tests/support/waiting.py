"""Waiting for what has to come: as long as a busy machine may need, and no longer than it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import httpx

# Far beyond what anything here takes on a quiet machine: only what never comes fails.
GENEROUS_S = 300.0
POLL_S = 0.05
Found = TypeVar("Found")


def until(holds: Callable[[], Found], what: str = "it never came to that") -> Found:
    """What `holds` returns once that is true. AssertionError, with `what`, if it never is."""
    deadline = time.monotonic() + GENEROUS_S
    while not (found := holds()):
        assert time.monotonic() < deadline, what
        time.sleep(POLL_S)
    return found


def answers(client: httpx.Client, path: str = "/") -> bool:
    """Whether anybody answers there, be it with an error."""
    try:
        client.get(path)
    except httpx.TransportError:
        return False
    return True
