"""When copies of a session start: as near to their template as those are who share with it.

Documents and tasks live in bursts. Copies at the very time of their template would make reuse too
short (+5 to +40 points), copies spread evenly would tear bursts apart (-13 to -17). What counts is
the deepest node that the copy has in common with an earlier one: if the companions of that node come
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
from loadkit.forecast.copies import CopyPlan
from loadkit.forecast.first_touches import FirstTouches
from loadkit.forecast.sample import Sample

Jitter = Literal["neighbour", "uniform"]
_MIN_RARE = 10
# Two copies of one template are 1.5 Laplace scales apart on average: as far as companions are.
_PER_DISTANCE = 2 / 3


def start_shifts(
    sample: Sample,
    touches: FirstTouches,
    plan: CopyPlan,
    random: np.random.Generator,
    *,
    jitter: Jitter = "neighbour",
    move_sample: bool = False,
) -> FloatArray:
    """(s, c) seconds by which the copies of each session start later than it did.

    Copy 0, the session itself, stays where it is unless move_sample says otherwise. Starts are
    reflected into [0, window - duration]; gaps inside a session are kept.
    """
    shape = plan.stay.shape
    if jitter == "uniform":
        start = _reflected(sample, random.random(shape) * sample.window_s)
    else:
        start = _near_owners(sample, touches, plan, random, move_sample)
    if not move_sample:
        start[:, 0] = sample.first_s
    return start - sample.first_s[:, None]


def _near_owners(
    sample: Sample,
    touches: FirstTouches,
    plan: CopyPlan,
    random: np.random.Generator,
    move_sample: bool,
) -> FloatArray:
    """(s, c) starts: near that of the copy whose node it is, or whenever sessions start."""
    opened = openings(sample, touches)
    deepest, owner = last_followed(opened, plan)
    scale = burst_scales(opened, deepest, random)
    moved = random.laplace(size=scale.shape) * _PER_DISTANCE
    start = _reflected(sample, _arrivals_like(sample, scale.shape, random))
    rows = np.arange(len(start))
    for copy in range(0 if move_sample else 1, start.shape[1]):  # owners come before their copies
        if copy == 1 and not move_sample:
            start[:, 0] = sample.first_s
        base = sample.first_s if copy == 0 else start[rows, owner[:, copy]]
        near = np.isfinite(scale[:, copy])
        start[near, copy] = base[near] + moved[near, copy] * scale[near, copy]
        start[:, copy] = _reflected(sample, start[:, copy : copy + 1])[:, 0]
    return start


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


def last_followed(opened: Openings, plan: CopyPlan) -> tuple[IntArray, IntArray]:
    """(deepest, owner), each (s, c): the last opening down to which the copy follows its template
    or has what another copy has, -1 if none, and the copy whose node it has there."""
    bounds = np.searchsorted(opened.session, np.arange(len(plan.stay) + 1))
    return _last_followed(bounds, plan.phi[opened.node], plan.stay, plan.parent)


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
def _last_followed(
    bounds: IntArray, phi: FloatArray, stay: FloatArray, parent: IntArray
) -> tuple[IntArray, IntArray]:
    deepest = np.full(stay.shape, -1, np.int64)
    owner = np.zeros(stay.shape, np.int64)
    for session in range(stay.shape[0]):
        for copy in range(stay.shape[1]):
            leaves = 0.0
            for opening in range(bounds[session], bounds[session + 1]):
                if phi[opening] > stay[session, copy]:
                    break
                leaves = max(leaves, phi[opening])
                deepest[session, copy] = opening
            who = copy
            while who > 0 and deepest[session, copy] >= 0 and stay[session, who] >= leaves:
                who = parent[session, who]
            owner[session, copy] = who
    return deepest, owner
