"""When copies of a session start: as near to their template as those are who share with it.

Documents and tasks live in bursts. Copies at the very time of their template would make reuse too
short (+5 to +40 points), copies spread evenly would tear bursts apart (-13 to -17). What counts is
the deepest node at which the copy still follows its template: if the companions of that node come
in bursts, the copy moves so far (Laplace) that copies are as near to each other as companions are,
else it starts whenever sessions do. A
node that no other session of the sample has borrows the burst of one that few have.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from loadkit.core.jit import compiled
from loadkit.core.trace import FloatArray, IntArray
from loadkit.forecast.bursts import Openings, openings
from loadkit.forecast.first_touches import FirstTouches
from loadkit.forecast.sample import Sample

Jitter = Literal["neighbour", "uniform"]
_MIN_RARE = 10
# Two copies of one template are 1.5 Laplace scales apart on average: as far as companions are.
_PER_DISTANCE = 2 / 3


def start_shifts(
    sample: Sample,
    touches: FirstTouches,
    stay: FloatArray,
    phi: FloatArray,
    random: np.random.Generator,
    jitter: Jitter = "neighbour",
) -> FloatArray:
    """(s, c) seconds by which the copies of each session start later than it did.

    stay (s, c) and phi (nodes,) are the copies' numbers u and the leaving probabilities (see
    `copies`). Starts are reflected into [0, window - duration]; gaps inside a session are kept.
    """
    start = random.random(stay.shape) * sample.window_s
    if jitter == "neighbour":
        start = _arrivals_like(sample, stay.shape, random)
        opened = openings(sample, touches)
        deepest = deepest_followed(opened, phi, stay)
        scale = burst_scales(opened, deepest, random)
        near = np.isfinite(scale)
        session = np.nonzero(near)[0]
        moved = random.laplace(size=len(session)) * scale[near] * _PER_DISTANCE
        start[near] = sample.first_s[session] + moved
    return _reflected(sample, start) - sample.first_s[:, None]


def burst_scales(opened: Openings, deepest: IntArray, random: np.random.Generator) -> FloatArray:
    """(s, c) seconds of the burst that a copy belongs to, inf if it belongs to none.

    deepest (s, c) is the opening at which the copy follows its template for the last time, -1 if at
    none.
    """
    rare = np.flatnonzero(opened.rare())
    lonely = (deepest >= 0) & (opened.others[deepest] == 0)
    source = deepest.copy()
    if len(rare) >= _MIN_RARE:
        source[lonely] = random.choice(rare, int(lonely.sum()))
    in_burst = (source >= 0) & (random.random(source.shape) >= opened.by_chance[source])
    return np.where(in_burst, opened.scale_s[source], np.inf)


def deepest_followed(opened: Openings, phi: FloatArray, stay: FloatArray) -> IntArray:
    """(s, c) index of the deepest opening with leaving probability <= u on the whole path, or -1."""
    bounds = np.searchsorted(opened.session, np.arange(len(stay) + 1))
    return _deepest_followed(bounds, phi[opened.node], stay)


def _arrivals_like(
    sample: Sample, shape: tuple[int, ...], random: np.random.Generator
) -> FloatArray:
    """Starts as dense over the window as those of the sample, so that its daily rhythm is kept."""
    drawn = random.choice(sample.first_s, shape)
    spacing = 4 * sample.window_s / max(sample.num_sessions, 1)
    smoothed: FloatArray = drawn + random.laplace(size=shape) * spacing
    return smoothed


def _reflected(sample: Sample, start: FloatArray) -> FloatArray:
    duration = sample.last_s - sample.first_s
    span = np.maximum(sample.window_s - duration, 1e-6)[:, None]
    inside: FloatArray = span - np.abs(np.mod(start, 2 * span) - span)
    return inside


@compiled
def _deepest_followed(bounds: IntArray, phi: FloatArray, stay: FloatArray) -> IntArray:
    deepest = np.full(stay.shape, -1, np.int64)
    for session in range(stay.shape[0]):
        for copy in range(stay.shape[1]):
            for opening in range(bounds[session], bounds[session + 1]):
                if phi[opening] > stay[session, copy]:
                    break
                deepest[session, copy] = opening
    return deepest
