"""What an estimate rests on, for the reader who wants to know how far to trust it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from loadkit.analysis.weighted import weighted_hits
from loadkit.forecast.growth import Growth
from loadkit.forecast.interval import Capacities, Uncertainty
from loadkit.forecast.question import Question, method_of
from loadkit.forecast.refuse import effective_sessions
from loadkit.forecast.superpose import Template, superpose


def self_check(
    question: Question,
    template: Template,
    growth: Growth,
    error: Uncertainty,
    distinct_blocks: int,
) -> dict[str, Any]:
    """Facts of the sample, parts of the interval in points, and two checks at the asked capacity.

    private_rate and shareable_rate: the estimate if all that only one session has were private for
    ever, and under whichever discovery law leaves least private. alpha: where between the power
    law (0) and the mixture of Poisson rates (1) the sample's own thinnings place it.
    """
    sample, asked = template.sample, question.scenario
    check: dict[str, Any] = {
        "method": method_of(question),
        "sessions": sample.num_sessions,
        "effective_sessions": round(effective_sessions(sample), 1),
        "sessions_inferred": question.trace.sessions_inferred,
        "window_s": sample.window_s if sample.has_clock else None,
        "half_width_points": 100 * float(error.half[0, 0]),
        "sampling_points": 100 * float(error.sampling[0, 0]),
        "bias_points": 100 * float(error.bias[0, 0]),
        "distinct_blocks": distinct_blocks,
    }
    if asked.traffic > 1:
        check["alpha"] = template.laws.alpha()
        for kind in ("private", "shareable"):
            other = replace(growth, alone=kind)
            rates = other.rates(template, question.times, [asked.capacity_blocks], question.seed)
            check[f"{kind}_rate"] = float(rates[0, 0])
    if sample.has_clock:
        check["shift_test_points"] = shift_test(template, question.seed)
    return check


def shift_test(template: Template, seed: int) -> float:
    """Points by which the sample's own rate changes if its sessions are spread evenly over the
    window: the largest change among small and middling caches.

    Far from 0: traffic is bursty, and whatever assumes even arrivals would miss by so much.
    """
    footprint = template.sample.distinct_blocks()
    capacities: Capacities = [max(1, round(footprint * part)) for part in (0.03, 0.1, 0.25)]
    random = np.random.default_rng([seed, 4])
    moved = superpose(template, 1.0, random, jitter="uniform", move_sample=True)
    even = weighted_hits(moved.stream, capacities).hit_rates()
    change = even - weighted_hits(template.sample.stream, capacities).hit_rates()
    return 100 * float(change[int(np.argmax(np.abs(change)))])
