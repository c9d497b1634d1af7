"""Hit rate over the run's time: how long a cold cache takes to warm up."""

from __future__ import annotations

import msgspec
import numpy as np

from loadkit.core.trace import FloatArray, IntArray
from loadkit.gate.requests import Requests

MAX_WINDOWS = 24
_MIN_REQUESTS = 2
_PARTS = ("continuation", "shared", "replay_cross_session", "replay_same_session")


class Window(msgspec.Struct, frozen=True):
    """Requests sent in [start_s, end_s), seconds after the run's start. parts and hit_rate: shares
    of their prompt tokens; so_far: hit rate of everything sent up to end_s."""

    start_s: float
    end_s: float
    requests: int
    prompt_tokens: int
    parts: dict[str, float]
    hit_rate: float
    so_far: float


class Timeline(msgspec.Struct, frozen=True):
    """windows: of equal length; windows in which nothing was sent are left out."""

    label: str
    windows: tuple[Window, ...]


def timeline(label: str, requests: Requests) -> Timeline:
    """Answered requests with a split, in at most 24 windows; none if there are too few."""
    rows = requests.is_ok & np.isfinite(requests.hit) & np.isfinite(requests.number["sent_s"])
    rows &= requests.number["prompt_tokens"] > 0
    sent = requests.number["sent_s"][rows]
    if len(sent) < 2 * _MIN_REQUESTS or sent.max() <= sent.min():
        return Timeline(label, ())
    count = int(min(MAX_WINDOWS, len(sent) // _MIN_REQUESTS))
    edges = np.linspace(sent.min(), sent.max(), count + 1)
    place = np.clip(np.searchsorted(edges, sent, side="right") - 1, 0, count - 1)
    sums = {
        name: _sums(place, requests.number[name][rows], count)
        for name in (*_PARTS, "prompt_tokens")
    }
    sizes = _sums(place, np.ones(len(sent)), count)
    return Timeline(label, tuple(_windows(edges, sizes, sums)))


def _sums(place: IntArray, values: FloatArray, count: int) -> FloatArray:
    sums = np.zeros(count)
    np.add.at(sums, place, values)
    return sums


def _windows(edges: FloatArray, sizes: FloatArray, sums: dict[str, FloatArray]) -> list[Window]:
    windows: list[Window] = []
    hits, prompts = 0.0, 0.0
    for number, size in enumerate(sizes):
        tokens = float(sums["prompt_tokens"][number])
        if not size or not tokens:
            continue
        parts = {name: float(sums[name][number]) / tokens for name in _PARTS}
        hits, prompts = hits + sum(parts.values()) * tokens, prompts + tokens
        windows.append(
            Window(
                start_s=float(edges[number]),
                end_s=float(edges[number + 1]),
                requests=int(size),
                prompt_tokens=int(tokens),
                parts=parts,
                hit_rate=min(1.0, sum(parts.values())),
                so_far=min(1.0, hits / prompts),
            )
        )
    return windows
