"""Counts of how often each thing was seen -> how many there really are, and how unequal they are."""

from __future__ import annotations

import msgspec
import numpy as np

from loadkit.core.trace import FloatArray, IntArray

# Clauset, Shalizi and Newman (SIAM Review 51, 2009, section 3.5): below about 50 observations the
# exponent is not to be trusted.
MIN_OBSERVATIONS = 50
_LARGEST_EXPONENT = 20.0


class HillNumbers(msgspec.Struct, frozen=True):
    """Effective number of kinds: as many equally frequent ones would be as diverse (Hill, 1973).

    order_0 counts all, order_1 is exp(Shannon entropy), order_2 is 1 / sum of squared shares, which
    the frequent ones dominate. None for nothing.
    """

    order_0: int
    order_1: float | None
    order_2: float | None


class Zipf(msgspec.Struct, frozen=True):
    """Power law of popularity: the r-th most popular is used about r^-exponent as often.

    tail_exponent is the a of P(x uses) ~ x^-a for x >= 2, by maximum likelihood; exponent is
    1 / (a - 1). standard_error is a's.
    """

    exponent: float
    tail_exponent: float
    standard_error: float
    observations: int


def hill_numbers(counts: IntArray) -> HillNumbers:
    """Of counts >= 1, one a kind."""
    if not len(counts):
        return HillNumbers(0, None, None)
    share = counts / counts.sum()
    entropy = float(-np.sum(share * np.log(share)))
    return HillNumbers(len(counts), float(np.exp(entropy)), float(1 / np.sum(share**2)))


def coverage(counts: IntArray) -> float | None:
    """Good-Turing: 1 - (kinds seen once) / draws, the chance that the next draw is of a known kind.

    It takes draws as independent. None without draws.
    """
    draws = int(counts.sum())
    return 1 - int(np.sum(counts == 1)) / draws if draws else None


def zipf(counts: IntArray) -> Zipf | None:
    """Zipf exponent of counts >= 2; None if there are too few, or they do not differ.

    Discrete power law of Clauset, Shalizi and Newman (2009), equation 3.5 with x_min = 2: the a
    that maximises -n ln zeta(a, 2) - a sum ln x; equation 3.6 gives its standard error.
    """
    seen = counts[counts >= 2]
    if len(seen) < MIN_OBSERVATIONS or np.all(seen == seen[0]):
        return None
    mean_log = float(np.mean(np.log(seen)))
    low, high = 1.0 + 1e-6, _LARGEST_EXPONENT
    for _ in range(60):
        middle = (low + high) / 2
        step = 1e-5 * (middle - 1)
        slope = (_log_zeta(middle + step) - _log_zeta(middle - step)) / (2 * step)
        low, high = (middle, high) if -slope > mean_log else (low, middle)
    a = (low + high) / 2
    return Zipf(1 / (a - 1), a, _standard_error(a, len(seen)), len(seen))


def _standard_error(a: float, observations: int) -> float:
    """1 / sqrt(n times the second derivative of ln zeta)."""
    step = 1e-3 * (a - 1)
    curvature = (_log_zeta(a + step) - 2 * _log_zeta(a) + _log_zeta(a - step)) / step**2
    return float(1 / np.sqrt(observations * curvature))


_HEAD: FloatArray = np.arange(2.0, 34.0)


def _log_zeta(a: float) -> float:
    """ln of the Hurwitz zeta function at (a, 2): 32 terms, the rest by Euler and Maclaurin."""
    end = 34.0
    rest = end ** (1 - a) / (a - 1) + end**-a / 2 + a * end ** (-a - 1) / 12
    return float(np.log(np.sum(_HEAD**-a) + rest))
