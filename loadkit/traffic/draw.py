"""Draws from a profile's declared distributions."""

from __future__ import annotations

import math
from random import Random

from loadkit.profiles import Distribution


def draw(distribution: Distribution, rng: Random) -> float:
    """One value, held within min and max.

    geometric: number of trials until the first success with mean m, P(k) = (1/m)(1-1/m)^(k-1).
    lognormal: exp(N(ln median, sigma)).
    """
    d = distribution
    match d.distribution:
        case "constant":
            value = float(d.mean or 0.0)
        case "uniform":
            value = rng.uniform(d.min, d.max)
        case "lognormal":
            value = math.exp(rng.gauss(math.log(d.median or 1.0), d.sigma or 0.0))
        case "geometric":
            value = _geometric(d.mean or 1.0, rng)
    return min(max(value, d.min), d.max)


def draw_int(distribution: Distribution, rng: Random) -> int:
    return round(draw(distribution, rng))


def zipf_rank(count: int, exponent: float, rng: Random) -> int:
    """0-based rank with P(k) ~ 1 / (k + 1)**exponent."""
    weights = [1 / rank**exponent for rank in range(1, count + 1)]
    return rng.choices(range(count), weights)[0]


def _geometric(mean: float, rng: Random) -> float:
    if mean <= 1:
        return 1.0
    # Inversion; 1 - random() is in (0, 1], so the logarithm is finite.
    return 1.0 + math.floor(math.log(1 - rng.random()) / math.log(1 - 1 / mean))
