"""Draws from a profile's declared distributions."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import accumulate
from random import Random

from loadkit.profiles import Distribution


def draw(distribution: Distribution, rng: Random) -> float:
    """One value, held within min and max.

    geometric: number of trials until the first success with mean m, P(k) = (1/m)(1-1/m)^(k-1).
    lognormal: exp(N(ln median, sigma)). choice: one of the values, each as likely as its weight.
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
        case "choice":
            value = rng.choices(d.values or (0.0,), d.weights)[0]
    return min(max(value, d.min), d.max)


def draw_int(distribution: Distribution, rng: Random) -> int:
    return round(draw(distribution, rng))


def zipf_rank(count: int, exponent: float, rng: Random) -> int:
    """0-based rank with P(k) ~ 1 / (k + 1)**exponent."""
    return rng.choices(range(count), cum_weights=_zipf_weights(count, exponent))[0]


@lru_cache(maxsize=64)
def _zipf_weights(count: int, exponent: float) -> list[float]:
    return list(accumulate(1 / rank**exponent for rank in range(1, count + 1)))


def _geometric(mean: float, rng: Random) -> float:
    if mean <= 1:
        return 1.0
    # Inversion; 1 - random() is in (0, 1], so the logarithm is finite.
    return 1.0 + math.floor(math.log(1 - rng.random()) / math.log(1 - 1 / mean))
