"""The discovery law: of what one session of the sample had alone, how much will stay alone?

f(m) is the weight (blocks) of first touches whose node m other sessions of the sample touch too. If
sessions were thinned to a share x, such a touch would have no companion with probability (1 - x)^m,
so M(x) = sum f(m) (1 - x)^m / F is the share of lone touches at every x <= 1, without a model. Beyond
x = 1 the lone part shrinks as r(x) = M(x) / M(1), for which two laws stand at the ends of what
data can tell apart: a power law, with a constant for what is private for ever, and a mixture of
Poisson rates. How much of each is learnt by thinning the sample itself and forecasting it back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

import numpy as np

from loadkit.core.trace import FloatArray, IntArray

MIDPOINTS = 24
_POINTS = np.geomspace(1 / 32, 1, 9)  # where the power law is fitted
_EXPONENTS = np.linspace(0.05, 1.2, 24)
# Rates of companions: 0 is private for ever; 3000 is met by every session that can be sampled.
RATES = np.concatenate([[0.0], np.geomspace(1e-3, 3000, 90)])
_EM_STEPS = 150
_THINNINGS = (1 / 2, 1 / 4, 1 / 8)
_THINNING_CAP = 60  # above it a touch has companions in every thinning that is tried
_PRIOR = 1e-5  # pulls alpha to 1/2 where the sample cannot tell the two laws apart


@dataclass(frozen=True)
class Discovery:
    """The law of one class of first touches. companions (j,) distinct values of m, mass (j,) f(m)."""

    companions: IntArray
    mass: FloatArray

    @cached_property
    def total(self) -> float:
        return float(self.mass.sum())

    @cached_property
    def lone_share(self) -> float:
        """M(1): the share of weight that one session has alone."""
        return float(self.mass[self.companions == 0].sum() / self.total) if self.total else 0.0

    @cached_property
    def power_law(self) -> tuple[float, float, float]:
        """(a, c0, c1) of c0 + c1 x^-a, fitted to M on x <= 1."""
        return _fit_power_law(self.thinned_share(_POINTS))

    @cached_property
    def mixture(self) -> FloatArray:
        """(len(RATES),) weights of a Poisson mixture fitted to f by expectation-maximisation."""
        chance = poisson_table(tuple(self.companions.tolist()))
        weights = np.full(len(RATES), 1 / len(RATES))
        share = self.mass / self.total
        for _ in range(_EM_STEPS):
            likelihood = np.maximum(chance @ weights, 1e-300)
            weights = weights * ((share / likelihood) @ chance)
            weights /= weights.sum()
        return weights

    @cached_property
    def alpha(self) -> float:
        """Weight of the mixture in 0..1; 1/2 if nothing is shared or nothing alone."""
        if not 0 < self.lone_share < 1:
            return 0.5
        truth = self._mean_share(1.0, 0.0)
        pull = spread = 0.0
        for kept in _THINNINGS:
            thin = self._thinned(kept)
            low, high = (thin._mean_share(1 / kept, alpha) for alpha in (0.0, 1.0))
            pull += (truth - low) * (high - low)
            spread += (high - low) ** 2
        return float(np.clip((pull + 0.5 * _PRIOR) / (spread + _PRIOR), 0, 1))

    def still_alone(self, x: FloatArray, alpha: float | None = None) -> FloatArray:
        """r(x): the part of what is alone in the sample that is so at x >= 1 times its traffic."""
        if not self.lone_share:
            return np.ones(len(x))
        weight = self.alpha if alpha is None else alpha
        found = np.zeros(len(x))
        if weight < 1:
            found += (1 - weight) * self._by_power_law(x)
        if weight > 0:
            found += weight * self._by_mixture(x)
        return found

    def mean_alone(self, traffic: float, alpha: float | None = None) -> float:
        """nu: mean of r over the copies that are laid on top of the sample, x in (1, traffic)."""
        return float(self.still_alone(1 + _mids(traffic - 1), alpha).mean())

    def most_shareable(self, traffic: float) -> float:
        """nu of whichever of the two laws leaves least private."""
        return min(self.mean_alone(traffic, alpha) for alpha in (0.0, 1.0))

    def thinned_share(self, x: FloatArray) -> FloatArray:
        """M(x) for x <= 1."""
        left: FloatArray = (1 - x)[:, None] ** self.companions
        return left @ self.mass / self.total

    def _mean_share(self, upto: float, alpha: float) -> float:
        """Mean of M over (0, upto): distinct weight per first-touch weight at that traffic."""
        x = _mids(upto)
        beyond = self.lone_share * self.still_alone(np.maximum(x, 1), alpha)
        return float(np.where(x <= 1, self.thinned_share(np.minimum(x, 1)), beyond).mean())

    def _by_power_law(self, x: FloatArray) -> FloatArray:
        a, c0, c1 = self.power_law
        return np.minimum(1.0, (c0 + c1 * x**-a) / max(c0 + c1, 1e-12))

    def _by_mixture(self, x: FloatArray) -> FloatArray:
        """Posterior of the rate given no companion at x = 1, then no companion up to x."""
        posterior = self.mixture * np.exp(-RATES)
        left: FloatArray = np.exp(-np.outer(x - 1, RATES)) @ posterior
        return left / max(float(posterior.sum()), 1e-300)

    def _thinned(self, kept: float) -> Discovery:
        """The law that a share `kept` of the sample would show, on average over which share."""
        folded = np.bincount(
            np.minimum(self.companions, _THINNING_CAP), self.mass, _THINNING_CAP + 1
        )
        return Discovery(np.arange(_THINNING_CAP + 1), _binomial_table(kept) @ folded)


def discovery(others: IntArray, weight: IntArray) -> Discovery | None:
    """The law of these first touches; None if there are none."""
    if not len(others):
        return None
    companions, index = np.unique(others, return_inverse=True)
    return Discovery(companions, np.bincount(index.reshape(-1), weight).astype(np.float64))


@lru_cache(maxsize=64)
def poisson_table(companions: tuple[int, ...]) -> FloatArray:
    """(j, len(RATES)) chance of m companions at each rate; shared, so do not write into it."""
    log_factorial = np.array([math.lgamma(m + 1) for m in companions])
    with np.errstate(divide="ignore"):
        log_rate = np.log(RATES[1:])
    table = np.empty((len(companions), len(RATES)))
    m = np.array(companions)
    table[:, 0] = m == 0
    table[:, 1:] = np.exp(m[:, None] * log_rate - RATES[1:] - log_factorial[:, None])
    return table


def _mids(length: float) -> FloatArray:
    """Midpoints of equal parts of (0, length)."""
    return (np.arange(MIDPOINTS) + 0.5) / MIDPOINTS * length


def _fit_power_law(shares: FloatArray) -> tuple[float, float, float]:
    """Non-negative least squares in relative error, for each exponent; the best one."""
    best = (math.inf, 0.0, 1.0, 1.0)
    if not shares[-1] > 0:
        return best[1:]
    for exponent in _EXPONENTS:
        design = np.stack([1 / shares, _POINTS**-exponent / shares], axis=1)
        constant, slope = _non_negative(design)
        error = float(np.sum((design @ [constant, slope] - 1) ** 2))
        best = min(best, (error, float(exponent), constant, slope))
    return best[1:]


def _non_negative(design: FloatArray) -> tuple[float, float]:
    """Least squares of design @ (c0, c1) = 1 with both coefficients >= 0."""
    gram, right = design.T @ design, design.sum(axis=0)
    scale = gram[0, 0] * gram[1, 1] - gram[0, 1] ** 2
    if scale > 1e-12 * gram[0, 0] * gram[1, 1]:
        constant = (gram[1, 1] * right[0] - gram[0, 1] * right[1]) / scale
        slope = (gram[0, 0] * right[1] - gram[0, 1] * right[0]) / scale
        if constant >= 0 and slope >= 0:
            return float(constant), float(slope)
    alone = right / np.diag(gram)
    gain = right * alone  # drop in squared error of each column by itself
    return (float(alone[0]), 0.0) if gain[0] >= gain[1] else (0.0, float(alone[1]))


@cache
def _binomial_table(kept: float) -> FloatArray:
    """(cap + 1, cap + 1) chance that m of k companions are kept."""
    size = _THINNING_CAP + 1
    table = np.zeros((size, size))
    for k in range(size):
        for m in range(k + 1):
            table[m, k] = math.comb(k, m) * kept**m * (1 - kept) ** (k - m)
    return table
